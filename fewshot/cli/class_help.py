"""``--model.help MAML``: what a class is and what it takes, at once and on a screen or two.

Its own arguments come first, then those of its family, then those that all share.
"""

import ast
import functools
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, get_args, get_origin

import fewshot.arguments
from fewshot.arguments import KINDS as PLAIN
from fewshot.arguments import Range
from fewshot.cli.aliases import unknown
from fewshot.cli.arguments import options
from fewshot.cli.catalogue import benchmarks
from fewshot.cli.class_options import KINDS
from fewshot.cli.definitions import Argument, Definition, alias, arguments, definition, lineage
from fewshot.cli.options import help_width
from fewshot.errors import FewshotError

MORE = {
    "model": (
        "`fewshot list backbones` shows the networks, `--model.backbone.help NAME` what one takes."
    ),
    "model.backbone": "`fewshot list backbones` shows all networks.",
    "data": "`fewshot list benchmarks` shows all benchmarks.",
}
OWN, OF_FAMILY = "Its own arguments:", "Arguments of its family, {}:"
OF_ALL = dict.fromkeys(("MetaLearner", "EpisodicDataModule"), "Arguments of all, {}:")
"""How groups of arguments begin: those of the class, of the bases between, and of the last."""
MODULE, BACKBONE = "a torch module", "a backbone's name"


def class_help(args: Sequence[str]) -> str | None:
    """What a command line that asks for the help of a class is answered.

    None where it asks for none, or for one that its source does not tell: the parser answers then.

    Raises:
        FewshotError: it does not say of which class, or there is none of that name.
    """
    named: dict[str, str] = {}
    for option, value in options(args):
        kind, _, last = option.rpartition(".")
        if option in KINDS:
            named[option] = value
        elif last == "help" and kind in KINDS:
            name = value if value and not value.startswith("-") else named.get(kind, "")
            if not name:
                raise FewshotError(f"--{option} of which class? Name it (see `fewshot list`)")
            cls = _stands_for(kind, name)
            if (one := definition(cls)) is not None:
                short = "" if cls == name else f", which {name} stands for"
                return f"Help for --{kind} {cls}{short}\n\n{described(kind, cls, one)}"
            if re.fullmatch(r"[\w+ -]+", name):  # no path to a class of the user's own
                raise FewshotError(unknown(kind.rpartition(".")[2], name))
    return None


def _stands_for(kind: str, name: str) -> str:
    """The class that a short name such as ``resnet18`` stands for; of another name itself."""
    return next((each.name for each in KINDS[kind]() if name in each.short_names), name)


def described(kind: str, name: str, one: Definition) -> str:
    """The help of a class that stands behind the option `kind`."""
    width = help_width()
    paragraphs = (" ".join(text.split()) for text in one.doc.split("\n\n"))
    parts = [textwrap.fill(text, width) for text in paragraphs]
    headings = {**OF_ALL, one.name: OWN}
    for heading, group in groupby(
        arguments(name), lambda each: headings.get(each.owner.name, OF_FAMILY)
    ):
        stated = list(group)
        lines = textwrap.wrap(heading.format(_owners(stated)), width)
        for argument in stated:
            lines.extend(_lines(kind, argument, width))
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, textwrap.fill(MORE[kind], width)])


def _owners(stated: Sequence[Argument]) -> str:
    """The classes that state arguments, with what the first of them is."""
    first, *others = dict.fromkeys(argument.owner.name for argument in stated)
    text = " ".join(stated[0].owner.doc.split("\n\n")[0].split()).partition(": ")
    return ", ".join([f"{first} ({(text[2] or text[0]).rstrip('.')})", *others])


def _lines(kind: str, argument: Argument, width: int) -> Iterator[str]:
    facts = shown_type(argument.owner.module, argument.annotation)
    if argument.default is not None:
        facts += f"; default {shown(argument.default)}"
    else:
        facts += "; the benchmark's" if argument.name in benchmark_facts() else "; required"
    yield from textwrap.wrap(
        f"  --{kind}.{argument.name}  {textwrap.shorten(facts, 90, placeholder=' ...')}",
        width,
        subsequent_indent=" " * 10,
        break_on_hyphens=False,
    )
    yield from textwrap.wrap(
        argument.text, width, initial_indent=" " * 6, subsequent_indent=" " * 6
    )


@functools.cache
def benchmark_facts() -> frozenset[str]:
    """What benchmarks know of themselves: an argument of such a name follows them."""
    named: set[str] = set()
    for entry in benchmarks():
        one = definition(entry.name)
        for owner in lineage(one) if one is not None else ():
            for item in owner.node.body:
                if isinstance(item, ast.AnnAssign | ast.Assign) and "facts" in _targets(item):
                    module, value = owner.module, item.value
                    if isinstance(value, ast.Name):
                        module, value = alias(module, value.id) or (module, value)
                    named.update(_texts(value))
    return frozenset(named)


def _targets(item: ast.AnnAssign | ast.Assign) -> list[str]:
    targets = item.targets if isinstance(item, ast.Assign) else [item.target]
    return [node.id for each in targets for node in ast.walk(each) if isinstance(node, ast.Name)]


def _texts(value: ast.expr | None) -> Iterator[str]:
    for node in ast.walk(value) if value is not None else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def shown(default: ast.expr) -> str:
    """A default as a config writes it."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = ast.unparse(default)
    return words.get(text, text.strip("'"))


def shown_type(module: str, annotation: ast.expr | None) -> str:
    """What an argument may be, in words: ``number > 0``, ``auto, loop or vmap``."""
    allowed = choices(module, annotation)
    return " or ".join(filter(None, (", ".join(allowed[:-1]), *allowed[-1:])))


def choices(module: str, annotation: ast.expr | None) -> list[str]:
    """The same one by one: values, and names of kinds of value."""
    allowed = list(dict.fromkeys(_choices(module, annotation)))
    if BACKBONE in allowed and MODULE in allowed:
        allowed.remove(MODULE)
    return allowed


def _choices(module: str, node: ast.expr | None) -> Iterator[str]:
    """The kinds of value that a type hint allows."""
    if node is None:
        yield "any value"
    elif isinstance(node, ast.BinOp):
        yield from _choices(module, node.left)
        yield from _choices(module, node.right)
    elif isinstance(node, ast.Name):
        yield from _named(module, node.id)
    elif isinstance(node, ast.Subscript):
        yield from _subscripted(module, node)
    elif isinstance(node, ast.Constant):
        yield "null" if node.value is None else str(node.value)
    else:
        yield WORDS.get(ast.unparse(node), ast.unparse(node))


WORDS = {
    "bool": "true, false",
    "int": "integer",
    "float": "number",
    "str": "text",
    "Path": "path",
    "Any": "any value",
    "nn.Module": MODULE,
    "Backbone": BACKBONE,
    "OptimizerCallable": "an optimizer's name",
    "LRSchedulerCallable": "a scheduler's name",
}


def _named(module: str, name: str) -> Iterator[str]:
    kind = getattr(fewshot.arguments, name, None)
    if get_origin(kind) is Annotated:  # a range
        plain, *marks = get_args(kind)
        yield " ".join([PLAIN[plain][1].removeprefix("a ").removeprefix("an "), *map(repr, marks)])
    elif name not in WORDS and (found := alias(module, name)):
        yield from _choices(*found)
    else:
        yield from WORDS.get(name, name).split(", ")


def _subscripted(module: str, node: ast.Subscript) -> Iterator[str]:
    origin = ast.unparse(node.value)
    inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if origin in ("Literal", "Union", "Optional"):
        for each in inside:
            yield from _choices(module, each)
    elif origin == "Annotated":
        yield f"{shown_type(module, inside[0])} {_range(inside[1])}"
    elif origin in ("list", "Sequence", "tuple"):
        yield f"list of {shown_type(module, inside[0])}"
    elif origin in ("dict", "Mapping"):
        yield f"mapping to {shown_type(module, inside[-1])}"
    else:
        yield ast.unparse(node)


def _range(node: ast.expr) -> str:
    """A `Range` that is stated where the argument is."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "Range":
        return ast.unparse(node)
    by_name = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return repr(Range(*map(ast.literal_eval, node.args), **by_name))
