"""The settings of earlier runs, by their configs: what differs between them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.cli.arguments import read_config
from fewshot.cli.runs import CHECKPOINTS, Run, shown

Settings = Mapping[str, Any]
"""Values by their keys, such as ``model.init_args.inner_lr``."""
TRAINED = "trained."
"""In front of the keys of the run that made the weights."""
NO_SETTINGS = re.compile(
    r"(seed_everything|run_name|ckpt_path|test_after_fit|verbose|weights_only"
    r"|episodes|freed_memory"
    r"|trainer\.(default_root_dir|logger|enable_progress_bar|enable_model_summary)"
    r"|data\.init_args\.(root|download|num_workers|worker_timeout))(\..*)?"
)
"""Keys that say where files lie and what is shown of a run, not what it does."""


def settings(run: Run) -> Settings | None:
    """The settings of a run and of the one that trained its weights; None without a config.

    A run that went on counts as it did last.

    Raises:
        FewshotError: its config is none.
    """
    own = _read(run.folder)
    if own is None:
        return None
    return own | {f"{TRAINED}{key}": value for key, value in _trained(run, own).items()}


def _read(folder: Path) -> dict[str, Any] | None:
    """The settings in a run's last config, without what says where it lies."""
    numbers = {
        int(match[1] or 0): path
        for path in folder.glob("config*.yaml")
        if (match := re.fullmatch(r"config(?:-(\d+))?\.yaml", path.name))
    }
    if not numbers:
        return None
    found = dict(_flat(read_config(numbers[max(numbers)])))
    return {key: value for key, value in found.items() if not NO_SETTINGS.fullmatch(key)}


def _trained(run: Run, own: dict[str, Any]) -> dict[str, Any]:
    """The settings that the tested weights were trained with; where they are gone, whose these are.

    Args:
        run: that was tested.
        own: its settings.
    """
    checkpoint = run.results.get("checkpoint")
    if not isinstance(checkpoint, str):
        return own
    path, folder = Path(checkpoint), run.folder.resolve()
    if not path.exists():  # moved with its run, or removed
        kept = (folder / CHECKPOINTS / path.name).exists()
        of_this = kept or path.parent.parent.name == folder.name
        return own if of_this else {"checkpoint": checkpoint}
    holder = path.resolve().parent
    holder = holder.parent if holder.name == CHECKPOINTS else holder
    found = own if holder == folder else _read(holder)
    return {"checkpoint": checkpoint} if found is None else found


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values in mappings, and in lists of mappings, by their paths."""
    items: dict[Any, Any] = {}
    if isinstance(value, dict):
        items = value
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = dict(enumerate(value))
    if not items:
        yield key, value
    for name, item in items.items():
        yield from _flat(item, f"{key}.{name}" if key else str(name))


def differences(runs: Sequence[Settings | None]) -> dict[str, list[str]]:
    """The settings by which runs differ: what each has, by the option's name; empty if it has none.

    An argument that a run lacks because its class is another differs where other runs have several
    values of it.
    """
    known = [of for of in runs if of is not None]
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for of in known for key in of):
        values = {repr(of[key]) for of in known if key in of}
        if len(values) > 1 or any(_lacks(of, key, known) for of in known):
            texts = [_text(of[key]) if of is not None and key in of else "" for of in runs]
            found[_option(key)] = texts
    return {  # what a run was trained with is told once where it was tested with the same
        option: texts
        for option, texts in found.items()
        if not option.startswith(TRAINED) or found.get(option.removeprefix(TRAINED)) != texts
    }


def _lacks(of: Settings, key: str, known: Sequence[Settings]) -> bool:
    """Whether settings lack a key that others with the same class have."""
    owner = f"{key.rpartition('.init_args.')[0]}.class_path"
    return key not in of and any(key in o and o.get(owner) == of.get(owner) for o in known)


def _option(key: str) -> str:
    return key.replace(".init_args", "").removesuffix(".class_path")


def _text(value: Any) -> str:
    """A value in a word; of a class its name."""
    text = {None: "null", True: "true", False: "false"}.get(value) if _is_word(value) else None
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*\.[A-Z]\w*", value):
        text = value.rpartition(".")[2]
    return shown(value if text is None else text)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def told(found: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each setting that differs: its values, each with the numbers of its runs."""
    lines = []
    for option, texts in found.items():
        numbers: dict[str, list[str]] = {}
        for number, text in enumerate(texts, start=1):
            if text:
                numbers.setdefault(text, []).append(str(number))
        of = (f"{text} ({', '.join(rows)})" for text, rows in numbers.items())
        lines.append(f"{option}: {', '.join(of)}")
    return lines
