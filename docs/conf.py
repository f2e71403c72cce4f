"""The documentation site: `make docs` builds it into build/docs, warnings are errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "generate"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import class_pages

project, author, html_title = "fewshot", "the fewshot authors", "fewshot"
extensions = ["myst_parser", "mathml"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_math_renderer = "mathml"
exclude_patterns = ["generate"]
suppress_warnings = ["toc.not_included"]  # records and decisions are reached from their indices
class_pages.write(Path(__file__).parent / "classes")  # not kept: they are the docstrings'
