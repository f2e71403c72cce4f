"""The documentation site: `make docs` builds it into build/docs, warnings are errors."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "generate"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import class_pages
import notebooks

project, author, html_title = "fewshot", "the fewshot authors", "fewshot"
extensions = ["myst_nb", "mathml"]  # with it comes myst_parser
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_static_path, html_css_files = ["static"], ["site.css"]
html_js_files = ["leaderboard.js"]
html_math_renderer = "mathml"
exclude_patterns = ["generate", "classes/notebooks"]
nb_execution_mode = "force"  # what is shown is what this version of the code does
nb_execution_in_temp = nb_execution_raise_on_error = nb_merge_streams = True
nb_execution_timeout = 600  # seconds a cell
logging.getLogger("traitlets").setLevel(logging.WARNING)  # says of each that it is executed
nb_output_stderr = "warn"  # which ends the build: a notebook prints what one wants to see
suppress_warnings = ["toc.not_included"]  # records and decisions are reached from their indices
classes = Path(__file__).parent / "classes"  # not kept: what is in it is written elsewhere
class_pages.write(classes)
notebooks.write(Path(__file__).parent / "notebooks", classes / "notebooks")
