"""The configs that come with the package, found by their names from any folder."""

from collections.abc import Sequence
from pathlib import Path

import fewshot
from fewshot.errors import FewshotError, nearest

OPTIONS = ("--config", "-c")


def folder() -> Path:
    """Where they are: within the installed package, or beside it in a checkout."""
    package = Path(fewshot.__file__).parent
    within = package / "configs"
    return within if within.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Their names, such as ``glyphs/protonet_5way1shot``."""
    here = folder()
    files = here.glob("*/*.yaml")
    return sorted(path.relative_to(here).with_suffix("").as_posix() for path in files)


def header(name: str) -> str:
    """The first line of a config: what it is."""
    with folder().joinpath(f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def locate(value: str) -> str:
    """The path of the config that `--config` means: a file, or one of the package's by its name.

    Raises:
        FewshotError: it is neither.
    """
    if Path(value).is_file() or any(sign in value for sign in ":{\n~"):
        return value  # an address, or the content itself, is the parser's
    name = value.removesuffix(".yaml").removeprefix("configs/")
    if name in (known := names()):
        return str(folder() / f"{name}.yaml")
    hint = nearest(name, known)
    if "choose from" in hint:  # too many to list
        hint = "; give an existing path, or a name that `fewshot list configs` shows"
    raise FewshotError(f"the file {value} does not exist{hint}")


def located(args: Sequence[str]) -> list[str]:
    """A command line with each config's name replaced by its path."""
    command_line: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if equals and option in OPTIONS:
            command_line.append(f"{option}={locate(value)}")
        else:
            command_line.append(
                locate(arg) if command_line and command_line[-1] in OPTIONS else arg
            )
    return command_line
