"""The site: `python -m sphinx -W -j auto docs build/site` makes it, with tutorials executed."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "vone_jax"
author = "The vone_jax authors"
copyright = "the vone_jax authors, Apache-2.0"
version = release = installed_version("vone-jax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "public_names",
    "internal_links",
]
exclude_patterns = ["_extensions", "examples"]
templates_path: list[str] = []

# Markdown. Headings are anchors, as in the repository.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]

# Tutorials run when the site is built; a cell that fails fails the build. What ran is kept in the
# build directory. `-D nb_execution_mode=off` leaves them out.
nb_execution_mode = "cache"
nb_execution_in_temp = True
# Seconds of a cell, several times those on a machine that does nothing else.
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# They share what they compile, and keep it for the next build.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE.parent / "build" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# The API, from docstrings in Google's style.
autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    "member-order": "bysource",
}
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 80
add_module_names = False
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True
# A reference to a name of this project that does not exist fails the build. Names of other projects
# and types that are not public are not looked up.
nitpicky = True
# A page that is named by a pattern need not exist yet.
suppress_warnings = ["toc.empty_glob"]
nitpick_ignore_regex = [
    ("py:.*", r"(?!vone_jax\b).*"),
    ("py:class", r"vone_jax\.\w+\.\w+\.\w+"),
]

html_theme = "sphinx_book_theme"
html_title = "vone_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "navbar_persistent": [],
}
# The address of the repository, https://HOST/OWNER/NAME, is known where the site is published.
if address := os.environ.get("REPOSITORY_URL"):
    html_theme_options |= {
        "repository_url": address,
        "repository_branch": "main",
        "path_to_docs": "docs",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
