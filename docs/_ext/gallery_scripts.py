"""Which scripts the gallery has, which of them this build runs, and what sphinx-gallery is told of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.errors import ConfigError

SECTIONS = ("quantization", "packing", "marlin", "gpu", "profiling")
"""The order in which a reader meets the sections. A section appears with its first script."""


def scripts(gallery: Path) -> list[Path]:
    """All scripts of the gallery, in the order of the site."""
    return [script for section in SECTIONS for script in sorted((gallery / section).glob("plot_*.py"))]


def selected(gallery: Path, only: str) -> list[Path]:
    """The scripts that `only` names: sections, scripts, or section/script; all if it names nothing."""
    everything = scripts(gallery)
    if not only.split():
        return everything
    chosen: list[Path] = []
    for name in only.split():
        matches = [script for script in everything if name in names(script)]
        if not matches:
            known = " ".join(dict.fromkeys(n for script in everything for n in names(script)[:2]))
            raise ConfigError(f"{name!r} is no section or script of the gallery; it has: {known}")
        chosen += matches
    return [script for script in everything if script in chosen]


def names(script: Path) -> tuple[str, str, str]:
    """What a reader may call a script: its section, its stem, or both."""
    return script.parent.name, script.stem, f"{script.parent.name}/{script.stem}"


def docname(script: Path) -> str:
    """The page that sphinx-gallery makes of a script."""
    return f"gallery/{script.parent.name}/{script.stem}"


def find(gallery: Path, filename: str) -> Path:
    """The script with this file name; sphinx-gallery makes sure that there is only one."""
    return next(script for script in scripts(gallery) if script.name == filename)


def refuse_empty_sections(gallery: Path) -> None:
    """sphinx-gallery shows every folder that has a header, and every file in it, whether it runs or not."""
    for header in sorted(gallery.glob("*/GALLERY_HEADER.*")):
        section = header.parent
        if section.name not in SECTIONS:
            raise ConfigError(f"gallery/{section.name} is no section: known are {', '.join(SECTIONS)}")
        if not list(section.glob("plot_*.py")):
            raise ConfigError(f"gallery/{section.name} has a header and no plot_*.py: add both together")
        for file in sorted(section.glob("*.py")):
            if not file.name.startswith("plot_"):
                raise ConfigError(
                    f"gallery/{section.name}/{file.name} would be shown but not run: call it plot_NN_{file.name}, "
                    "or move it into the package"
                )


def configuration(gallery: Path, only: str) -> dict[str, Any]:
    """`sphinx_gallery_conf`, with strings in place of functions, so that Sphinx can compare and store it."""
    refuse_empty_sections(gallery)
    run = "|".join(re.escape(f"/{script.parent.name}/{script.name}") for script in selected(gallery, only))
    return {
        "examples_dirs": "../gallery",
        "gallery_dirs": "gallery",
        "subsection_order": [f"../gallery/{section}" for section in SECTIONS],
        "within_subsection_order": "FileNameSortKey",
        "filename_pattern": f"({run})$" if run else "(?!)",
        "abort_on_example_error": True,
        "image_scrapers": ("figures.light_dark",),
        "reset_modules": ("matplotlib", "ledger.around_script"),
        "reset_modules_order": "both",
        # A block may end in a call that returns a figure, which the scraper shows; its text would be noise.
        "ignore_repr_types": r"matplotlib\.",
        "backreferences_dir": "api/generated/backreferences",
        "doc_module": ("awqdoc",),
        "remove_config_comments": True,
        "download_all_examples": False,  # downloads.py makes one archive that also holds the wheel
        "write_computation_times": False,
        "show_signature": False,
        "css": ("sg_gallery",),  # tables are styled in awqdoc.css
    }
