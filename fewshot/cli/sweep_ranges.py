"""What a search tries of an option: a range of numbers, or one of several words."""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from fewshot.cli.sweep_plan import Choice
from fewshot.errors import FewshotError

QUOTED = "/\\'\"[]{}"
"""Characters that no range has, but paths, addresses and YAML."""
SUCH_AS = "such as 0.01:0.5:log, 1:5 or 16:64:16"
NOT_SEARCHED = {
    "config": "give the options that differ",
    "seed_everything": "the search goes by the first of its values, and the best setting is then"
    " trained with all",
}


class Range(NamedTuple):
    """The values of an option: numbers from `low` to `high`, or one of `words`."""

    option: str
    text: str
    """As it was given."""
    low: float = 0
    high: float = 0
    """Included. Two integers make a range of integers."""
    log: bool = False
    """Whether orders of magnitude are equally likely."""
    step: float | None = None
    words: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, str]:
        """The values at both ends, as an option takes them."""
        return (self.words[0], self.words[-1]) if self.words else (str(self.low), str(self.high))


def is_range(word: str) -> bool:
    """Whether a value is LOW:HIGH, LOW:HIGH:log, LOW:HIGH:STEP or A|B, right or wrong."""
    if any(character in word for character in QUOTED):
        return False
    return "|" in word or word.count(":") in (1, 2)


def is_plain_range(word: str) -> bool:
    """Whether a value can only be a range of numbers."""
    numbers = word.removesuffix(":log").split(":")
    return is_range(word) and "|" not in word and all(_number(text) is not None for text in numbers)


def ranges_of(choices: Sequence[Choice]) -> dict[str, Range]:
    """The ranges among the values, by their options.

    Raises:
        FewshotError: one is wrong.
    """
    found = {}
    for choice in choices:
        words = [word for word in choice.values if is_range(word)]
        if not words:
            continue
        if len(choice.values) > 1:
            raise FewshotError(
                f"--{choice.option} has the range {words[0]} beside other values; give one range,"
                " or values alone"
            )
        if choice.plain in NOT_SEARCHED:
            raise FewshotError(
                f"--{choice.option} is not searched over; {NOT_SEARCHED[choice.plain]}"
            )
        found[choice.option] = read_range(choice.option, words[0])
    return found


def read_range(option: str, text: str) -> Range:
    """The range that a word means.

    Raises:
        FewshotError: it is none.
    """
    if "|" in text:
        words = tuple(text.split("|"))
        if not all(words) or len(set(words)) < len(words):
            raise FewshotError(f"{option} is {text!r}; give words that differ, such as 'a|b|c'")
        return Range(option, text, words=words)
    first, second, *rest = text.split(":")
    low, high, third = _number(first), _number(second), rest[0] if rest else None
    step = None if third in (None, "log") else _number(str(third))
    if low is None or high is None or (third not in (None, "log") and step is None):
        raise FewshotError(
            f"{option} is {text!r}, which is no range of numbers; give LOW:HIGH, LOW:HIGH:log or"
            f" LOW:HIGH:STEP, {SUCH_AS} (a value with a colon: put it in quotes twice)"
        )
    if low >= high:
        raise FewshotError(f"{option} is {text!r}; the first number must be less than the second")
    if third == "log" and low <= 0:
        raise FewshotError(f"{option} is {text!r}; on a logarithmic scale both must be above 0")
    if step is not None:
        if not 0 < step <= high - low:
            raise FewshotError(f"{option} is {text!r}; the step must be above 0 and fit in between")
        high = low + (high - low) // step * step  # the last that is reached
    numbers = [number for number in (low, high, step) if number is not None]
    kind = int if all(number == int(number) for number in numbers) and not _is_real(text) else float
    return Range(
        option,
        text,
        kind(low),
        kind(high),
        third == "log",
        None if step is None else kind(step),
    )


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if math.isfinite(number) else None


def _is_real(text: str) -> bool:
    """Whether any of the numbers is written as a real one."""
    return re.search(r"[.eE]", text) is not None


def placed(args: Sequence[str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments with the values of some options in the place of theirs."""
    names = [arg.removeprefix("--").partition("=")[0] for arg in args]
    return tuple(
        f"--{name}={values[name]}" if name in values else arg
        for name, arg in zip(names, args, strict=True)
    )
