"""How the documentation site is built: Sphinx, with the tutorials executed, and nothing online.

`make docs` copies this folder to ``build/docs-source`` first, with what its links point to, because
Sphinx takes a file for what it is where it really lies.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution, version
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import as_meant

project = "pyro_klmodes"
author = "The pyro_klmodes developers"
project_copyright = author
release = version = version("pyro-klmodes")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
# tutorials with a number are notebooks, other code in their folder is what they import
exclude_patterns = ["README.md"]  # its sections are included by the handbook
include_patterns = ["**.md", "**.rst", "tutorials/[0-9][0-9]_*.py"]

# Notebooks: all are run in every build, nothing is taken from an earlier one, and neither an error
# nor a word on stderr passes.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_output_stderr = "remove-warn"
nb_merge_streams = True
nb_ipywidgets_js = {}  # progress bars leave widgets behind, whose scripts would come from elsewhere
nb_render_markdown_format = "myst"

myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 80
default_role = "literal"  # of single backticks in docstrings
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "pyro_klmodes"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"footer_icons": []}
html_css_files = ["site.css"]
html_extra_path = ["_extra"]  # the figure to drag, beside the tutorials as in their folder
html_static_path = [
    "_static",
    # one file that needs no other: formulas as drawings, without fonts to load
    str(
        distribution("sphinx-mathjax-offline").locate_file(
            "sphinx-mathjax-offline/static/mathjax/tex-svg.js"
        )
    ),
]
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}


def setup(app: Sphinx) -> None:
    """Correct docstrings before napoleon, at 500, tells their sections apart."""
    app.connect("autodoc-process-docstring", as_meant, priority=400)
