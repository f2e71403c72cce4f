"""Short names of pre-trained backbones: ``--model.backbone resnet18``, or ``backbone: resnet18``.

Each stands for a class and some of its arguments, which the backbone's own file declares. They are
put in its place before the parser sees them. So a run's config has the class and its arguments.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from fewshot.cli.aliases import KINDS, meant
from fewshot.cli.catalogue import networks

KEY = "backbone"


@functools.cache
def short_names() -> Mapping[str, dict[str, Any]]:
    """What each name stands for, as a config says it."""
    return {
        name: {"class_path": f"fewshot.{entry.name}", "init_args": dict(arguments)}
        for entry in networks()
        for name, arguments in entry.short_names.items()
    }


def expanded(args: Sequence[str]) -> list[str]:
    """A command line with each short name replaced by what it stands for."""
    command_line: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if _is_key(option) and equals:
            command_line.append(f"{option}={_written(value)}")
        else:
            command_line.append(
                _written(arg) if command_line and _is_key(command_line[-1]) else arg
            )
    return command_line


@functools.cache
def read_in_configs() -> None:
    """Have the parser read short names in configs too, for the life of this process."""
    load = get_loader("yaml")
    set_loader("yaml", lambda text: replaced(load(text)), exceptions=(yaml.YAMLError,))


def replaced(value: Any) -> Any:
    """A config's content with each short name replaced by what it stands for.

    >>> replaced({"backbone": {"class_path": "efficientnet_lite0", "init_args": {"resize": 112}}})
    {'backbone': {'class_path': 'fewshot.EfficientNetLite0', 'init_args': {'resize': 112}}}
    """
    if not isinstance(value, Mapping):
        return value
    content = {key: replaced(item) for key, item in value.items()}
    for kind in KINDS.keys() & content.keys():
        content[kind] = _called(kind, content[kind])
    if KEY not in content:
        return content
    item = content[KEY]
    given = item if isinstance(item, Mapping) else {"class_path": item}
    name = given.get("class_path")
    if isinstance(name, str) and (meant := short_names().get(name)):
        arguments = {**meant["init_args"], **(given.get("init_args") or {})}
        content[KEY] = {"class_path": meant["class_path"], "init_args": arguments}
    return content


def _called(kind: str, item: Any) -> Any:
    """What a config says of a class, called by its name where it is called by another."""
    if isinstance(item, str):
        return meant(kind, item)
    if isinstance(item, Mapping) and isinstance(path := item.get("class_path"), str):
        return {**item, "class_path": meant(kind, path)}
    return item


def _is_key(option: str) -> bool:
    return option.startswith("--") and option.rpartition(".")[2] == KEY


def _written(value: str) -> str:
    """A value of the command line, as JSON where it is a short name."""
    return json.dumps(short_names()[value]) if value in short_names() else value
