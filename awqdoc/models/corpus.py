"""The text that the shipped model learned from and is judged by: Python 3.11.2's standard library.

`documents` reads sources (``Lib/**/*.py``, tests included) and documentation (``Doc/**/*.rst``) straight from the
release tarball of python.org. Each file has a *topic*, the module that it is about: ``Lib/json/decoder.py``,
``Lib/test/test_json/test_decode.py`` and ``Doc/library/json.rst`` are all about ``json``. The first byte of the
SHA-256 of the topic decides on which side of the split the file lies, so that source, tests and documentation of
one module are never on two sides:

- below `EVALUATION`: evaluation, which nothing but the final figures ever sees;
- below `CALIBRATION`: calibration, for AWQ's search and for the loss that is watched during the training;
- the rest, and the topics of `ALWAYS_TRAINING`: training.

Four texts of whole held-out files ship with the package (`TEXTS`); `read` returns their documents.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from awqdoc.errors import AwqdocError

URL = "https://www.python.org/ftp/python/3.11.2/Python-3.11.2.tgz"
SHA256 = "2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849"
SHIPPED = Path(__file__).parent / "shipped"

# Of the 256 values of a byte: 0 to 23 are evaluation, 24 to 47 calibration.
EVALUATION, CALIBRATION = 24, 48
# The eleven topics of more than 600 kB are training whatever their hash: one of them would be most of a text.
ALWAYS_TRAINING = (
    *("asyncio", "distutils", "email", "idlelib", "importlib", "logging"),
    *("multiprocessing", "tkinter", "unittest", "whatsnew", "xml"),
)
# Name of a shipped text -> the most bytes it may have.
TEXTS = {
    "evaluation-code": 400_000,
    "evaluation-docs": 400_000,
    "calibration-code": 280_000,
    "calibration-docs": 280_000,
}
# What one file and one topic may contribute to a shipped text: none of them should decide the figure.
FILE_LIMIT, TOPIC_LIMIT = 40_000, 80_000
# A line of its own between two documents of a shipped text; it is also the name of the tokenizer's end token.
END = "<|end|>"

# Data rather than text: character tables, generated ones among them, a copy of the documentation as one literal,
# a database schema, and sources that are meant to be odd (bad syntax, one expression of 90 KB, crashes).
LEFT_OUT = (
    "Lib/encodings/",
    "Lib/pydoc_data/",
    "Lib/html/entities.py",
    "Lib/stringprep.py",
    "Lib/msilib/",
    "Lib/lib2to3/tests/data/",
    "Lib/test/encoded_modules/",
    "Lib/test/crashers/",
    "Lib/test/bad",
    "Lib/test/re_tests.py",
    "Lib/test/test_strtod.py",
)
# Files named after an implementation, a part or a former name of their module.
ALIASES = {
    "cprofile": "profile",
    "datetimetester": "datetime",
    "defaultdict": "collections",
    "deque": "collections",
    "genericpath": "os",
    "httplib": "http",
    "httpservers": "http",
    "ntpath": "os",
    "ordered_dict": "collections",
    "pickletester": "pickle",
    "posixpath": "os",
    "py_abc": "abc",
    "pydecimal": "decimal",
    "pyio": "io",
    "sre": "re",
    "strptime": "time",
    "typed_dict_helper": "typing",
    "userdict": "collections",
    "userlist": "collections",
    "userstring": "collections",
    "weakrefset": "weakref",
    "weakset": "weakref",
}


@dataclass(frozen=True)
class Document:
    """One file: its path in the tarball (without the top folder) and its text, with line feeds and one at its end."""

    path: str
    text: str

    @property
    def topic(self) -> str:
        """The module that it is about."""
        return topic(self.path)

    @property
    def side(self) -> str:
        """``evaluation``, ``calibration`` or ``training``."""
        return side(self.topic)

    @property
    def is_documentation(self) -> bool:
        """Whether it is reStructuredText, not Python."""
        return self.path.startswith("Doc/")

    @property
    def is_test(self) -> bool:
        """Whether it tests the library."""
        *folders, name = PurePosixPath(self.path).parts
        return name.startswith("test_") or any(re.fullmatch(r"(.*_)?tests?", folder) for folder in folders)


def topic(path: str) -> str:
    """Name the module that a file is about: ``Lib/test/test_json/test_dump.py`` -> ``json``.

    The first folder or file below ``Lib``, ``Lib/test`` or ``Doc/<part>``, without ``test_``, underscores around
    it, what follows the first dot, hyphen or underscore, and digits at its end; then `ALIASES`. The release notes,
    which are about everything, are one topic.
    """
    parts = PurePosixPath(path).parts
    if parts[:2] == ("Doc", "whatsnew"):
        return "whatsnew"
    below = parts[2:] if parts[0] == "Doc" or (parts[1] == "test" and len(parts) > 2) else parts[1:]
    name = below[0] if below else parts[-1]
    name = name.lower().removesuffix(".py").removesuffix(".rst").strip("_").removeprefix("test_").strip("_")
    name = ALIASES.get(name, name)
    first = re.split(r"[._-]", name)[0]
    return ALIASES.get(first, first.rstrip("0123456789") or first)


def side(topic: str) -> str:
    """Return the side of the split on which a topic lies."""
    if topic in ALWAYS_TRAINING:
        return "training"
    byte = hashlib.sha256(topic.encode()).digest()[0]
    if byte < EVALUATION:
        return "evaluation"
    return "calibration" if byte < CALIBRATION else "training"


def documents(tarball: Path) -> list[Document]:
    """Read every file of the corpus from the release tarball, sorted by path, each text once.

    Raises
    ------
    AwqdocError
        If `tarball` cannot be read or is not the release that the split was made for.
    """
    _refuse_another(tarball)
    found = []
    with tarfile.open(tarball) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            stream = archive.extractfile(member) if _wanted(path) else None
            text = _text(stream.read()) if stream else None
            if text:
                found.append(Document(path, text))
    first = {document.text: document for document in sorted(found, key=lambda d: d.path, reverse=True)}
    return sorted(first.values(), key=lambda document: document.path)


def _refuse_another(tarball: Path) -> None:
    try:
        found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    except OSError as error:
        raise AwqdocError(f"The corpus needs {URL}, but {tarball} cannot be read ({error.strerror}).") from None
    if found != SHA256:
        raise AwqdocError(
            f"The corpus needs Python-3.11.2.tgz with SHA-256 {SHA256[:12]}…, but that of {tarball} is {found[:12]}…: "
            f"download {URL}."
        )


def _wanted(path: str) -> bool:
    in_corpus = (path.startswith("Lib/") and path.endswith(".py")) or (
        path.startswith("Doc/") and path.endswith(".rst")
    )
    return in_corpus and not path.startswith(LEFT_OUT)


def _text(content: bytes) -> str | None:
    """Decode a file, or return None if it is blank, not UTF-8, or holds our separator."""
    try:
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError:  # four files that test other encodings
        return None
    return text.rstrip() + "\n" if text.strip() and END not in text else None


def select(found: list[Document], name: str) -> list[str]:
    """Return the documents of the shipped text `name`, in order, from those of the corpus.

    Code is the library's own, not its tests. The order is that of the SHA-256 of the paths, so that stopping at
    the limit favours no part of the alphabet; a file is cut at the end of a line if it is longer than `FILE_LIMIT`
    or than what is left.
    """
    wanted_side, kind = name.split("-")
    wanted = [d for d in found if d.side == wanted_side and d.is_documentation == (kind == "docs") and not d.is_test]
    left = TEXTS[name]
    left_of_topic: dict[str, int] = {}
    texts = []
    for document in sorted(wanted, key=lambda d: hashlib.sha256(d.path.encode()).hexdigest()):
        of_topic = left_of_topic.setdefault(document.topic, TOPIC_LIMIT)
        text = _cut(document.text, min(FILE_LIMIT, of_topic, left))
        if len(text) > 200:  # less is a stub or the rest of a cut
            texts.append(text)
            size = len(text.encode()) + len(END) + 1
            left -= size
            left_of_topic[document.topic] -= size
    return texts


def _cut(text: str, limit: int) -> str:
    """Return the lines of a text that fit into `limit` bytes."""
    content = text.encode()
    return text if len(content) <= limit else content[: content.rfind(b"\n", 0, max(limit, 0)) + 1].decode()


def join(texts: list[str]) -> str:
    """Write documents as one text, with the line `END` between them."""
    return f"{END}\n".join(texts)


@lru_cache
def read(name: str) -> tuple[str, ...]:
    """Return the documents of the shipped text `name`, one of `TEXTS`.

    Raises
    ------
    AwqdocError
        If there is no such text or it is not in the package.
    """
    if name not in TEXTS:
        raise AwqdocError(f"There is no text {name!r}; there are {', '.join(TEXTS)}.")
    path = SHIPPED / f"{name}.txt"
    try:
        return tuple(path.read_bytes().decode("utf-8").split(f"{END}\n"))
    except OSError as error:
        raise AwqdocError(f"{path} cannot be read ({error.strerror}): install awqdoc again.") from None
