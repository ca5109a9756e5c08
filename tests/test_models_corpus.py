"""The corpus: which file lies on which side, what of it ships, and that nothing else is taken for it."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from awqdoc.errors import AwqdocError
from awqdoc.models import corpus, manifest
from awqdoc.models.corpus import END, SHIPPED, TEXTS, Document

MODULES = st.from_regex(r"[a-z]{1,12}", fullmatch=True).filter(lambda name: name not in {*corpus.ALIASES, "test"})
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)


def refusal(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(AwqdocError) as caught:
        call(*arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# Topics and sides


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        ("Lib/json/decoder.py", "json"),
        ("Lib/test/test_json/test_decode.py", "json"),
        ("Doc/library/json.rst", "json"),
        ("Lib/_pydecimal.py", "decimal"),
        ("Lib/test/datetimetester.py", "datetime"),
        ("Lib/test/test_ordered_dict.py", "collections"),
        ("Lib/collections/abc.py", "collections"),
        ("Doc/library/collections.abc.rst", "collections"),
        ("Doc/library/os.path.rst", "os"),
        ("Lib/posixpath.py", "os"),
        ("Lib/test/test_asyncio/test_events.py", "asyncio"),
        ("Doc/library/asyncio-task.rst", "asyncio"),
        ("Lib/test/test_urllib2.py", "urllib"),
        ("Lib/test/_test_multiprocessing.py", "multiprocessing"),
        ("Lib/__future__.py", "future"),
        ("Doc/whatsnew/3.9.rst", "whatsnew"),
        ("Doc/tutorial/classes.rst", "classes"),
        ("Doc/glossary.rst", "glossary"),
    ],
)
def test_a_file_is_about_its_module(path: str, topic: str) -> None:
    assert corpus.topic(path) == topic


@given(MODULES)
def test_source_tests_and_documentation_of_a_module_lie_on_one_side(module: str) -> None:
    paths = [
        f"Lib/{module}.py", f"Lib/_{module}.py", f"Lib/{module}/__init__.py", f"Lib/{module}/part.py",
        f"Lib/{module}/tests/test_part.py", f"Lib/test/test_{module}.py", f"Lib/test/test_{module}/test_part.py",
        f"Doc/library/{module}.rst", f"Doc/library/{module}.part.rst", f"Doc/c-api/{module}.rst",
    ]  # fmt: skip
    assert {Document(path, "").topic for path in paths} == {module}
    assert len({Document(path, "").side for path in paths}) == 1


@given(st.text(max_size=20))
def test_the_hash_of_the_topic_decides_the_side(topic: str) -> None:
    assume(topic not in corpus.ALWAYS_TRAINING)
    byte = hashlib.sha256(topic.encode()).digest()[0]
    assert corpus.side(topic) == ("evaluation" if byte < 24 else "calibration" if byte < 48 else "training")


@pytest.mark.parametrize(
    ("byte", "side"),
    [(0, "evaluation"), (23, "evaluation"), (24, "calibration"), (47, "calibration"), (48, "training")],
)
def test_sides_meet_at_their_bounds(byte: int, side: str) -> None:
    topic = next(str(i) for i in range(9999) if hashlib.sha256(str(i).encode()).digest()[0] == byte)
    assert corpus.side(topic) == side


@pytest.mark.parametrize(
    ("side", "topics"),
    [
        ("evaluation", "cmd collections dataclasses dis imaplib inspect json operator pydoc queue sqlite struct zlib"),
        ("calibration", "builtin configparser datetime dbm glob hashlib patma profile reprlib shlex unicode warnings"),
        ("training", "argparse bisect calendar ctypes decimal ftplib heapq io math os re ssl typing weakref zipfile"),
    ],
)
def test_sides_are_what_the_shipped_model_was_trained_with(side: str, topics: str) -> None:
    """A change here would put text that the model was trained on into the evaluation."""
    assert {topic: corpus.side(topic) for topic in topics.split()} == dict.fromkeys(topics.split(), side)


@pytest.mark.parametrize("topic", corpus.ALWAYS_TRAINING)
def test_large_topics_are_training(topic: str) -> None:
    assert corpus.side(topic) == "training"


def test_aliases_lead_to_a_topic_at_once() -> None:
    assert not set(corpus.ALIASES.values()) & set(corpus.ALIASES)
    assert all(corpus.topic(f"Lib/{topic}.py") == topic for topic in corpus.ALIASES.values())


@pytest.mark.parametrize(
    ("path", "is_test"),
    [
        ("Lib/test/support/__init__.py", True),
        ("Lib/lib2to3/tests/pytree_idempotency.py", True),
        ("Lib/idlelib/idle_test/htest.py", True),
        ("Lib/test_late.py", True),
        ("Lib/unittest/case.py", False),
        ("Lib/contest/it.py", False),
    ],
)
def test_tests_are_told_from_the_library(path: str, is_test: bool) -> None:
    assert Document(path, "").is_test == is_test


# Reading the tarball


def tarball(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "release.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"Python-3.11.2/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tarball(tmp_path, {"Lib/json/decoder.py": b"x = 1\n"})
    sentence = refusal(corpus.documents, path)
    assert str(path) in sentence
    assert corpus.URL in sentence


def test_missing_tarball_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(corpus.documents, tmp_path / "none.tgz")


def test_documents_are_the_readable_sources_and_documentation_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "Lib/b.py": b"b = 1\r\nc = 2\r\n\n",
        "Doc/library/b.rst": "\ufeffB — it\n".encode(),
        "Lib/a.py": b"a = 1",
        "Lib/copy_of_a.py": b"a = 1\n",
        "Lib/blank.py": b" \n",
        "Lib/latin.py": b"# \xe9\n",
        "Lib/separator.py": f"x = '{END}'\n".encode(),
        "Lib/data.txt": b"data\n",
        "Lib/encodings/cp037.py": b"table = 1\n",
        "Lib/test/bad_coding.py": b"bad = 1\n",
        "Tools/t.py": b"t = 1\n",
        "Doc/conf.py": b"c = 1\n",
        "README.rst": b"Read\n",
    }
    path = tarball(tmp_path, files)
    monkeypatch.setattr(corpus, "SHA256", manifest.sha256(path))
    assert corpus.documents(path) == [
        Document("Doc/library/b.rst", "B — it\n"),
        Document("Lib/a.py", "a = 1\n"),
        Document("Lib/b.py", "b = 1\nc = 2\n"),
    ]


# Choosing what ships

WORDS = [first + second + "x" for first in "abcdefghijklmnopqrstuvwxyz" for second in "aeiouy"]


@given(st.lists(LINES), st.integers(-5, 60))
def test_a_cut_ends_with_a_line_within_the_limit_and_is_the_longest_such(lines: list[str], limit: int) -> None:
    text = "".join(line + "\n" for line in lines)
    cut = corpus._cut(text, limit)
    assert text.startswith(cut)
    assert cut == "" or cut.endswith("\n")
    assert len(cut.encode()) <= max(limit, 0)
    rest = text[len(cut) :]
    assert not rest or len((cut + rest[: rest.index("\n") + 1]).encode()) > limit


def files_of(side: str, count: int, lines: int) -> list[Document]:
    """For each of some topics of a side: three sources, tests and documentation, each of 100 bytes a line."""
    topics = [topic for topic in WORDS if corpus.side(topic) == side][:count]
    assert len(topics) == count
    paths = ("Lib/{}/one.py", "Lib/{}/two.py", "Lib/{}/three.py", "Lib/test/test_{}.py", "Doc/library/{}.rst")
    return [Document(path.format(topic), f"{path.format(topic):99}\n" * lines) for topic in topics for path in paths]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_holds_only_its_side_and_kind_and_no_tests(name: str) -> None:
    found = [d for side in ("evaluation", "calibration", "training") for d in files_of(side, 4, 5)]
    chosen = corpus.select(found, name)
    by_text = {document.text: document for document in found}
    assert len(chosen) == (12 if name.endswith("code") else 4)
    for text in chosen:
        document = by_text[text]
        assert document.side == name.split("-")[0]
        assert document.is_documentation == name.endswith("docs")
        assert not document.is_test


def test_no_document_is_in_two_texts() -> None:
    found = [d for side in ("evaluation", "calibration", "training") for d in files_of(side, 4, 5)]
    chosen = [text for name in TEXTS for text in corpus.select(found, name)]
    assert len(chosen) == len(set(chosen)) == 2 * (12 + 4)


def test_the_choice_does_not_depend_on_the_order_of_the_files() -> None:
    found = files_of("evaluation", 8, 300)
    assert corpus.select(found, "evaluation-code") == corpus.select(found[::-1], "evaluation-code")


def test_no_file_or_topic_gives_more_than_its_limit() -> None:
    found = files_of("evaluation", 1, 450)  # three sources of 45 kB
    sizes = [len(text.encode()) for text in corpus.select(found, "evaluation-code")]
    assert max(sizes) == corpus.FILE_LIMIT
    assert 0.99 * corpus.TOPIC_LIMIT < sum(sizes) <= corpus.TOPIC_LIMIT


def test_no_text_is_larger_than_its_limit() -> None:
    chosen = corpus.select(files_of("evaluation", 8, 450), "evaluation-code")
    assert 0.99 * TEXTS["evaluation-code"] < len(corpus.join(chosen).encode()) <= TEXTS["evaluation-code"]


# The texts that ship


@pytest.mark.parametrize("name", TEXTS)
def test_shipped_text_is_the_one_that_the_manifest_lists(name: str) -> None:
    listed = json.loads((SHIPPED / manifest.NAME).read_text())
    assert manifest.describe(SHIPPED)[f"{name}.txt"] == listed[f"{name}.txt"]


@pytest.mark.parametrize("name", TEXTS)
def test_shipped_text_is_within_its_limits_and_whole(name: str) -> None:
    documents = corpus.read(name)
    assert len(documents) > 15
    assert all(len(document) > 200 and document.endswith("\n") for document in documents)
    assert max(len(document.encode()) for document in documents) <= corpus.FILE_LIMIT
    assert len(corpus.join(list(documents)).encode()) <= TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_separator_does_not_occur_in_a_document(name: str) -> None:
    assert [document for document in corpus.read(name) if END in document] == []


def test_no_document_ships_twice() -> None:
    documents = [document for name in TEXTS for document in corpus.read(name)]
    assert len(documents) == len(set(documents))


def test_code_is_code_and_documentation_is_documentation() -> None:
    for name in TEXTS:
        directives = sum(bool(re.search(r"^\.\. [\w-]+::", document, re.MULTILINE)) for document in corpus.read(name))
        assert (directives > 0.8 * len(corpus.read(name))) == name.endswith("docs")


@given(st.lists(LINES.map(lambda line: line + "\n").filter(lambda line: END not in line), min_size=1))
def test_what_is_joined_is_read_again(documents: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus.Path, "read_bytes", lambda _: corpus.join(documents).encode())
        assert corpus.read.__wrapped__("evaluation-code") == tuple(documents)


def test_unknown_text_is_refused() -> None:
    assert "evaluation-code, evaluation-docs" in refusal(corpus.read, "training-code")


def test_text_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SHIPPED", tmp_path)
    assert "install awqdoc again" in refusal(corpus.read.__wrapped__, "evaluation-code")


# The manifest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the four texts and their manifest."""
    for name in TEXTS:
        shutil.copy(SHIPPED / f"{name}.txt", tmp_path)
    manifest.write(tmp_path)
    return tmp_path


def test_untouched_folder_is_verified(package: Path) -> None:
    manifest.verify(package)


def test_changed_byte_is_told(package: Path) -> None:
    path = package / "evaluation-docs.txt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    sentence = refusal(manifest.verify, package)
    assert str(path) in sentence
    assert "install awqdoc again" in sentence


def test_missing_file_is_told(package: Path) -> None:
    (package / "evaluation-docs.txt").unlink()
    assert "evaluation-docs.txt is listed in manifest.json but missing" in refusal(manifest.verify, package)


def test_file_that_is_not_listed_is_told(package: Path) -> None:
    (package / "new.txt").write_text("new")
    assert "new.txt is not the file" in refusal(manifest.verify, package)


@pytest.mark.parametrize("content", [None, "{"], ids=["missing", "cut off"])
def test_manifest_that_cannot_be_read_is_told(content: str | None, package: Path) -> None:
    (package / manifest.NAME).unlink()
    if content is not None:
        (package / manifest.NAME).write_text(content)
    assert "manifest.json cannot be read" in refusal(manifest.verify, package)


def test_manifest_that_is_no_list_of_files_is_told(package: Path) -> None:
    (package / manifest.NAME).write_text("[]")
    assert "manifest.json is not a list of files: install awqdoc again" in refusal(manifest.verify, package)
