"""Writes the page of the public names when the site is built, from their sources."""

import ast

from fewshot.cli.catalogue import benchmarks, learners
from fewshot.lazy import public_names, source_of

INTRODUCTION = """# From Python: the public names

Each is imported by its name: `from fewshot import evaluate`. Learners and benchmarks have
[pages](learners/index.md) of [their own](benchmarks/index.md), and so have
[functions of a model](../functional.md)."""


def page() -> str:
    """The public names but for those with pages of their own: arguments and what they are."""
    elsewhere = {entry.name for entry in (*learners(), *benchmarks())}
    names = sorted(public_names("fewshot").items())
    found = [described(name, module) for name, module in names if name not in elsewhere]
    return "\n\n".join([INTRODUCTION, *filter(None, found)]) + "\n"


def described(name: str, module: str) -> str:
    """A class or function: its arguments and the paragraphs before `Args:`; else nothing."""
    for node in ast.parse(source_of(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            doc = (ast.get_docstring(node) or "").partition("\nArgs:")[0].strip()
            given = arguments(node)
            call = f"```python\n{name}({given})\n```\n\n" if given else ""
            return f"## `{name}`\n\n{call}{doc}"
    return ""


def arguments(node: ast.ClassDef | ast.FunctionDef) -> str:
    """As they stand in the source: a class's are its own constructor's, or its fields."""
    if isinstance(node, ast.FunctionDef):
        return ast.unparse(node.args).removeprefix("self").removeprefix(", ")
    for of in node.body:
        if isinstance(of, ast.FunctionDef) and of.name == "__init__":
            return arguments(of)
    fields = [of for of in node.body if isinstance(of, ast.AnnAssign) and node.decorator_list]
    return ", ".join(ast.unparse(of) for of in fields)
