"""The classes that a command line and its configs name, found before there is a parser.

Which arguments a benchmark's facts fill depends on them, and the parser must know that when it is
made.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from torch import nn

import fewshot
from fewshot.cli.aliases import meant
from fewshot.cli.arguments import options, read_config
from fewshot.cli.short_names import short_names
from fewshot.datamodules import EpisodicDataModule
from fewshot.errors import FewshotError, nearest
from fewshot.hyperparameters import parameter_names
from fewshot.lazy import public_names
from fewshot.learners import MetaLearner

KINDS: Mapping[str, tuple[type, str]] = {
    "model": (MetaLearner, "learner: derive it from fewshot.MetaLearner"),
    "data": (EpisodicDataModule, "benchmark: derive it from fewshot.EpisodicDataModule"),
    "benchmark": (EpisodicDataModule, "benchmark: derive it from fewshot.EpisodicDataModule"),
    "backbone": (nn.Module, "backbone: derive it from fewshot.Backbone"),
}
"""What the class at each key must be."""


class Setting:
    """What is said of an argument: its value, where that is a word, and its own arguments."""

    def __init__(self) -> None:
        self.word: str | None = None
        self.arguments: dict[str, Setting] = {}

    def at(self, key: str) -> "Setting":
        """What is said of one of its arguments, such as ``backbone.width``."""
        setting = self
        for name in key.split("."):
            if name not in ("class_path", "init_args", ""):
                setting = setting.arguments.setdefault(name, Setting())
        return setting

    def names(self, key: str) -> bool:
        """Whether anything is said of one of its arguments."""
        name, _, rest = key.partition(".")
        if name in ("class_path", "init_args"):
            return self.names(rest)
        setting = self.arguments.get(name)
        return setting is not None and (not rest or setting.names(rest))

    def set(self, value: Any) -> None:
        """Say it as a config does; what was said before and is not contradicted stays."""
        if isinstance(value, Mapping):
            if "class_path" in value:
                self.set(str(value["class_path"]))
            of_class = {"class_path", "init_args"} & value.keys()
            arguments = value.get("init_args") if of_class else value
            for name, item in (arguments or {}).items():
                self.at(str(name)).set(item)
        elif isinstance(value, str) and value.lstrip().startswith("{"):
            self.set(_parsed(value))
        elif isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
            self.set(read_config(Path(value)) if Path(value).is_file() else None)
        else:
            self.word = value if isinstance(value, str) else None


def said(args: Sequence[str], in_configs: bool = True, by_options: bool = True) -> Setting:
    """What a command line says of ``data``, ``model`` and the rest.

    Args:
        args: the command line, from the subcommand on.
        in_configs: count what its configs say.
        by_options: count what it says itself.
    """
    settings = Setting()
    for name, value in options(args):
        is_config = name == "config"
        if not (in_configs if is_config else by_options):
            continue
        if is_config:
            content = read_config(Path(value)) if Path(value).is_file() else _parsed(value)
            settings.set(content)
            settings.set(content.get(args[0]) or {})  # of a config for several subcommands
        elif name.endswith(".help"):
            setting = settings.at(name.removesuffix(".help"))
            setting.word = setting.word or value
        else:
            settings.at(name).set(value)
    return settings


def named_classes(args: Sequence[str], by_options: bool = True) -> dict[str, type]:
    """The benchmark (key ``data``), the learner (``model``) and the networks that it is made of.

    Args:
        args: the command line, from the subcommand on.
        by_options: count what it says itself, besides its configs.

    Returns:
        Each class by its key in the parser, such as ``model.init_args.backbone``.

    Raises:
        FewshotError: an import path leads nowhere, or to something else.
    """
    settings = said(args, by_options=by_options)
    return {key: cls for top in ("data", "model") for key, cls in _classes(top, settings.at(top))}


def written(args: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Those of the parser's keys of which a command line or its configs say something."""
    settings = said(args)
    return [key for key in keys if settings.names(key)]


def words(setting: Setting) -> dict[str, str | type]:
    """What is said in a word of a class's arguments: the class, where it names one."""
    return {
        name: (_located(name, own.word) if name in KINDS else None) or own.word
        for name, own in setting.arguments.items()
        if own.word is not None
    }


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:  # the parser says so
        return {}
    return content if isinstance(content, dict) else {}


def _classes(key: str, setting: Setting) -> Iterator[tuple[str, type]]:
    leaf = key.rpartition(".")[2]
    cls = None if setting.word is None else _located(leaf, setting.word)
    if cls is None:
        return
    yield key, cls
    for name in parameter_names(cls):
        if name in setting.arguments and key != "data":
            yield from _classes(f"{key}.init_args.{name}", setting.arguments[name])


def _located(leaf: str, word: str) -> type | None:
    """The class that `word` names as the argument `leaf`; None where the parser must decide."""
    base, kind = KINDS.get(leaf, (nn.Module, ""))
    word = meant(leaf, word) if leaf in KINDS else word
    if not kind and not all(part.isidentifier() for part in word.split(".")):
        return None  # a number, a list: nothing to look for among a thousand networks
    if leaf == "backbone" and word in short_names():
        word = str(short_names()[word]["class_path"]).rpartition(".")[2]
    if "." in word:
        return imported(leaf, word) if kind else _if_network(word)
    if word in public_names("fewshot"):
        candidate = getattr(fewshot, word)
    else:
        named = [cls for cls in _subclasses(base) if cls.__name__ == word]
        candidate = named[0] if len(named) == 1 else None
    return candidate if _is_a(candidate, base) else None


def imported(leaf: str, path: str) -> type | None:
    """The class at an import path, for one of `KINDS`.

    Raises:
        FewshotError: the module is not found or fails, has no such name, or it is something else.
    """
    base, kind = KINDS[leaf]
    target, names = _module(leaf, path)
    for name in names:
        if not hasattr(target, name):
            near = [n for n, value in vars(target).items() if _is_a(value, base)]
            hint = nearest(name, near) if near else f", and no other {kind.partition(':')[0]}"
            raise FewshotError(f"{leaf} is {path}, but {target.__name__} has no {name}{hint}")
        target = getattr(target, name)
    if isinstance(target, type) and not issubclass(target, base):
        raise FewshotError(f"{leaf} is {path}, which is no {kind}, or choose from `fewshot list`")
    return target if isinstance(target, type) else None


def _is_a(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _module(leaf: str, path: str) -> tuple[Any, list[str]]:
    """The module that an import path begins with, and the names behind it."""
    parts = path.split(".")
    for number in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:number])
        try:
            return import_module(module), parts[number:]
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                continue  # perhaps a class in a class, or there is none
            reason = str(error)
        except Exception as error:  # whatever a user's module stumbles over
            reason = f"{type(error).__name__}: {error}"
        raise FewshotError(
            f"{leaf} is {path}, but importing {module} fails ({' '.join(reason.split())}); mend it"
        )
    raise FewshotError(
        f"{leaf} is {path}, but there is no module {parts[0]!r}; correct it, or run where it is"
    )


def import_named(module: str) -> None:
    """Import a module that the user names on the command line.

    Raises:
        FewshotError: it is not found or fails.
    """
    try:
        import_module(module)
    except Exception as error:  # whatever a user's module stumbles over
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FewshotError(
            f"--import is {module}, but importing it fails ({reason}); correct it, or run where it"
            " is"
        ) from error


def _if_network(path: str) -> type | None:
    """The network at an import path of an argument that may be anything."""
    try:
        return imported("backbone", path)
    except FewshotError:
        return None


def _subclasses(base: type) -> list[type]:
    """The classes that are derived from `base`, each once."""
    found: dict[type, None] = {}
    below: list[type] = [base]
    while below:
        derived: list[type] = below.pop().__subclasses__()
        new = [cls for cls in derived if cls not in found]
        found |= dict.fromkeys(new)
        below += new
    return [*found]
