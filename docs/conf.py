"""Sphinx configuration. What needs more than a line stands in `_ext`, one idea in each file."""

import importlib.util
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import freshness  # noqa: E402
import gallery_scripts  # noqa: E402
import inventories  # noqa: E402
import stop  # noqa: E402
from sphinx.errors import ConfigError  # noqa: E402

import awqdoc  # noqa: E402
from awqdoc import experiments, gpu, recordings  # noqa: E402

only = os.environ.get("AWQDOC_ONLY", "")  # part of the gallery: see gallery_scripts.selected

project = "awqdoc"
author = "The awqdoc authors"
copyright = f"{author}. awqdoc {awqdoc.__version__}"
version = release = awqdoc.__version__
nitpicky = True
# Words that NumPy-style docstrings use in the place of a type, and the P of ParamSpec.
nitpick_ignore_regex = [
    ("py:class", r"triton\..*"),  # where triton is missing and so mocked, its types are text
    ("py:class", r"P|optional|sequence|callable|\d+|[{'\"].*|Path|Row|dict\[\w+"),
]
exclude_patterns = ["_build", "_deploy", "gallery/**/*.ipynb"]
templates_path = ["_templates"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
    "api_pages",
    "downloads",
    "explorer",
    "figures",
    "freshness",
    "mathml",
    "occupancy",
    "provenance",
    "recordings_page",
    "roofline",
]

# The gallery and the concept pages: both run, and run again when the key changes.
with stop.one_sentence():
    recordings.published()  # a malformed recording ends the build here
    if experiments.mode() == "live" and (lack := gpu.why_not_suitable()):
        raise ConfigError(f"AWQDOC_MODE=live measures on a GPU, but {lack}: AWQDOC_MODE=recorded replays.")
    replays = experiments.mode() == "recorded" or gpu.why_not_suitable()
    for name, experiment in experiments.EXPERIMENTS.items():
        if (replays or experiment.missing()) and not recordings.find(name):
            raise ConfigError(f"nobody has recorded {name}, and it is not measured here: restore awqdoc/recordings.")
    sphinx_gallery_conf = gallery_scripts.configuration(DOCS.parent / "gallery", only)
awqdoc_key = freshness.build_key()
nb_execution_cache_path = str(freshness.jupyter_cache(DOCS))
nb_execution_mode = "off" if only and not Path(nb_execution_cache_path).exists() else "cache"
# A checkout may lie in a folder with spaces; the names of the scripts themselves have none.
# A class that a package passes on is documented in both, and either is right for a link.
suppress_warnings = ["sphinx_gallery.space_in_filename", "ref.python"]
if nb_execution_mode == "off":
    suppress_warnings += ["myst-nb.lexer", "mystnb.glue"]
nb_execution_raise_on_error = True
os.environ["MPLBACKEND"] = "agg"  # so that cells show what they are told to, not every open figure
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress and warnings of libraries, with paths of the machine that built the page
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The API reference.
# What an adapter imports, and a machine without a GPU may lack.
_PEERS = ("awq", "awq_ext", "awq_inference_engine", "cuda", "gemlite", "gptqmodel", "marlin", "triton")
autodoc_mock_imports = [name for name in _PEERS if importlib.util.find_spec(name) is None]
autosummary_generate = ["api/index.md"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False
intersphinx_mapping = inventories.mapping(DOCS)
bibtex_bibfiles = ["references.bib"]

html_theme = "pydata_sphinx_theme"
html_title = "awqdoc"
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_baseurl = os.environ.get("AWQDOC_BASEURL", "")
html_static_path = ["_static"]
html_css_files = ["awqdoc.css"]
html_math_renderer = "mathml"
html_copy_source = False
_explorers = ("explorer", "roofline", "occupancy")
_plain = ("index", "run", *_explorers, "recordings", "glossary", "references", "acknowledgments")
html_sidebars = {page: [] for page in _plain}
html_theme_options = {
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}
if "AWQDOC_SWITCHER" in os.environ:
    html_theme_options["navbar_start"] = ["navbar-logo", "version-switcher"]
    html_theme_options["check_switcher"] = False
    html_theme_options["switcher"] = {
        "json_url": os.environ["AWQDOC_SWITCHER"],
        "version_match": html_baseurl.rstrip("/").rsplit("/", 1)[-1],
    }
ogp_site_url = html_baseurl
ogp_social_cards = {"enable": False}
