"""Error messages of the command line: one line each, with the nearest right word for one misspelt.

jsonargparse reports a wrong argument with every alternative that it has tried. What a user needs of
it is the innermost complaint; the patterns below pick it out. What matches none of them is shown as
it is, in one line.
"""

import errno
import pydoc
import re
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path

import fewshot
from fewshot.cli.aliases import KINDS, unknown
from fewshot.cli.arguments import unknown_option
from fewshot.cli.catalogue import find
from fewshot.cli.commands import COMMANDS
from fewshot.cli.dumps import BASES, BEHIND, CHOICES, IN_FRONT, Say, key_of, types_of, value_of
from fewshot.cli.hinted import of_several_types, public_kinds
from fewshot.errors import FewshotError, chain, nearest
from fewshot.files.room import NO_ROOM, is_without_room
from fewshot.hyperparameters import parameter_names


def one_line(error: BaseException) -> str:
    """The one-line message of `error`: its `FewshotError`'s, or what the parser meant to say."""
    for cause in chain(error):
        if isinstance(cause, FewshotError):
            return _joined(str(cause))
    # the one that names a file: where loggers are closed, they raise it again without
    for cause in sorted(chain(error), key=lambda cause: getattr(cause, "filename", None) is None):
        if told := _of_file(cause):
            return told
    text = _joined(str(error))
    if told := of_several_types(text):
        return told
    for pattern, say in PATTERNS:
        found = list(re.finditer(pattern, text))
        if found:
            return say(found[-1])
    return _unexpected(error, text)


def _unexpected(error: BaseException, text: str) -> str:
    """What is said of an error that nobody foresaw, such as a mistake in a user's own network.

    Where the user's own code stands behind it, its innermost line is named.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({text}); lower model.episodes_per_chunk or data.meta_batch_size"
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] != "fewshot":
        return f"{text}; install {(error.name or 'it').partition('.')[0]}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(FOREIGN)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    kind = "" if type(error) in (ValueError, OSError) else f"{type(error).__name__}: "
    return f"{kind}{text or 'no reason given'}{where}; FEWSHOT_DEBUG=1 shows the traceback"


FOREIGN = ("<", str(Path(fewshot.__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib")))
"""Where code stands that is not the user's own."""
REMEDIES = {
    **dict.fromkeys(NO_ROOM, "make room there, or choose another folder"),
    errno.ENOENT: "give an existing path",
    errno.EACCES: "choose a path that you may use",
    errno.EPERM: "choose a path that you may use",
    errno.EROFS: "choose a folder that can be written to",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "give a path through folders alone",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower data.num_workers",
}
"""What mends an error of the system's."""


def _of_file(error: BaseException) -> str | None:
    """What is said of an error of the system's that names a file, or that there is no room."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    remedy = REMEDIES.get(error.errno)
    if is_without_room(error):
        return (
            f"cannot write {error.filename or 'a file or the output'} ({error.strerror}); {remedy}"
        )
    if error.filename is None or remedy is None:
        return None
    return f"{error.filename}: {error.strerror}; {remedy}"


def _joined(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------ what to say of each complaint


def _wrong_option(match: re.Match[str]) -> str:
    path, option = match.groups()
    option = option.partition(".")[0]
    if get_close_matches(option, ("class_path", "init_args"), cutoff=0.8):
        return f"unknown key {option!r}{nearest(option, ('class_path', 'init_args'))}"
    cls = find(path) or pydoc.locate(path)
    names = parameter_names(cls) if isinstance(cls, type) else []
    return f"{path.rpartition('.')[2]} has no argument {option!r}" + (
        nearest(option, names) if names else ""
    )


def _wrong_callable_option(match: re.Match[str]) -> str:
    option, path = match.groups()
    return _wrong_option(re.fullmatch(r"(.*) (.*)", f"{path} {option}") or match)


def _wrong_class(match: re.Match[str]) -> str:
    name = match.group(1)
    key = key_of(match.string[: match.start()])
    if key in KINDS:
        return unknown(key, name)
    names = CHOICES.get(key, list)() or public_kinds(match.string[: match.start()])
    return f"{name!r} is no known class" + (
        nearest(name, names) if names else "; give its full import path"
    )


def _wrong_kind(match: re.Match[str]) -> str:
    path, base = match.groups()
    key = {"MetaLearner": "model", "EpisodicDataModule": "data", "Backbone": "backbone"}.get(
        base, ""
    )
    name = path.rpartition(".")[2]
    choices = f"; choose from {', '.join(CHOICES[key]())}" if key else ""
    return f"{name} is no {base}{choices}"


def _wrong_key(match: re.Match[str]) -> str:
    return unknown_option(match.group(1))


def _missing(match: re.Match[str]) -> str:
    names = re.sub(r"\b(fit|validate|test|predict)\.", "", match.group(1))
    if set(names.split(", ")) <= {"model", "data"}:
        options = " and ".join(f"--{name}" for name in names.split(", "))
        return (
            f"{options} {'is' if ' ' not in options else 'are'} missing; give a config (--config"
            " FILE) or a class each"
        )
    before = re.findall(r"class_path '([\w.]+)'", match.string[: match.start()])
    after = re.search(r"Namespace\(class_path='([\w.]+)'", match.string[match.end() :])
    callables = re.search(r"callable class: $", match.string[: match.start()])
    path = after.group(1) if after and (callables or not before) else before[-1] if before else ""
    return (
        f"{path.rpartition('.')[2]} needs the argument {names}; set it in the config or on the"
        " command line"
    )


def _wrong_value(match: re.Match[str]) -> str:
    expected, value = match.groups()
    return (
        f"{key_of(match.string[: match.start()])} is {value_of(value)}; give"
        f" {' or '.join(types_of(expected))}"
    )


def _fallback(match: re.Match[str]) -> str:
    complaint = re.sub(r" - Expected a <class 'NoneType'>.*", "", match.group(1))
    return f"{key_of(match.string)}: {complaint}"


EXPECTED = r"Expected a (?:typing\.Literal\[[^\]]*\]|<class '[\w.]+'>)"
PATTERNS: tuple[tuple[str, Say], ...] = (
    *IN_FRONT,
    (rf"class_path '(?!{BASES}')([\w.]+)': Option '([\w.]+)' is not accepted", _wrong_option),
    (
        r"Option '([\w.]+)' is not accepted\. Got value: Namespace\(class_path='([\w.]+)'",
        _wrong_callable_option,
    ),
    (r"Expected a dot import path string: (\S+)", _wrong_class),
    (
        r"Group '([\w.]+)' does not accept option '([\w.]+)'",
        lambda m: unknown_option(".".join(m.groups())),
    ),
    (r"does not accept (?:option|key) '([\w.]+)'", _wrong_key),
    (r"^Option '([\w.]+)' is not accepted$", _wrong_key),
    (r"unrecognized arguments: --?([\w.]+)", _wrong_key),
    (
        r"unrecognized arguments: (\S+)",
        lambda m: (
            f"{m.group(1)!r} belongs to no option; a class is given as --model {m.group(1)} or"
            " --data ..."
        ),
    ),
    (r"the following arguments are required: ([\w.]+(?:, [\w.]+)*)", _missing),
    (
        rf"(?<!- )({EXPECTED})\. Got value:\s?(.*?)(?=\s?- Expected a <class 'NoneType'>|$)",
        _wrong_value,
    ),
    (
        rf"Errors: ((?:- {EXPECTED} )+)Given value type: <class '\w+'> Given value: (\S+)",
        _wrong_value,
    ),
    (r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", _wrong_kind),
    (
        r"invalid choice: '([^']+)' \(choose from",
        lambda m: f"unknown command {m.group(1)!r}" + nearest(m.group(1), COMMANDS),
    ),
    (
        r'expected "subcommand" to be one of',
        lambda m: f"no command given; choose from {', '.join(COMMANDS)}",
    ),
    (
        r"File does not exist: '([^']+)'",
        lambda m: f"the file {m.group(1)} does not exist; give an existing path",
    ),
    (
        (
            r"Automatic gradient clipping is not supported for manual optimization\. Remove"
            r" `Trainer\((\w+)=([\w.]+)\)`"
        ),
        lambda m: (
            f"trainer.{m.group(1)} is {m.group(2)}, but learners clip by themselves;"
            f" remove it and set model.gradient_clip to {m.group(2)}"
        ),
    ),
    (
        r"No supported gpu backend found|No supported (\w+) backend found",
        lambda m: (
            "trainer.accelerator is gpu, but this machine has none that torch can use; set it to"
            " auto or cpu"
        ),
    ),
    (
        r"invalid accelerator name: `accelerator='([^']*)'`\. Available names are: ([\w, ]+)",
        lambda m: (
            f"trainer.accelerator is {m.group(1)!r}"
            + nearest(m.group(1), ["gpu", *m.group(2).split(", ")])
        ),
    ),
    (
        r"(-?\d+) is not in bounds, numpy accepts from (\d+) to (\d+)",
        lambda m: (
            f"seed_everything is {m.group(1)}; give an integer from {m.group(2)} to {m.group(3)}"
        ),
    ),
    # behind wrong values: the parser tries every class of that name, whatever was wrong
    (
        r"Multiple subclasses with name (\w+)\.",
        lambda m: (
            f"several classes are named {m.group(1)!r}; give the full import path of the one you"
            " mean"
        ),
    ),
    *BEHIND,
    (r'Parser key "[\w.]+": ((?:(?!Parser key ").)*?)(?: Given value type: .*)?$', _fallback),
)
"""Patterns of messages, the first that is found wins, its last occurrence counts.

And what to say instead.
"""
