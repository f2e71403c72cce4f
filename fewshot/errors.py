"""The one exception that says: the input is wrong, and here is the remedy."""

import difflib
from collections.abc import Iterable, Iterator


class FewshotError(ValueError):
    """Wrong input from the user: a value, a file, a config or a checkpoint.

    The message is one line that names the value and the remedy. The command line prints it without
    a traceback (set ``FEWSHOT_DEBUG=1`` to see one) and exits with status 2.
    """


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it, each once: a chain may lead back into itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def closest(word: str, words: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The most similar of `words`, whatever their case; None where none is similar.

    Args:
        word: perhaps misspelt.
        words: that may be meant.
        cutoff: how similar it must be, up to 1.
    """
    folded = {other.lower(): other for other in sorted(set(words))}
    close = difflib.get_close_matches(word.lower(), folded, 1, cutoff)
    return folded[close[0]] if close else None


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the most similar of `words`; all of them where none is."""
    words = sorted(set(words))
    meant = closest(word, words)
    return f"; did you mean {meant!r}?" if meant else f"; choose from {', '.join(words)}"


def check_at_least(least: int, **values: int) -> None:
    """Check that each value is `least` or more.

    Raises:
        FewshotError: one is not; it is named.
    """
    for name, value in values.items():
        if value < least:
            raise FewshotError(f"{name} is {value}; it must be at least {least}")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that the argument `name` is one of `choices`.

    Raises:
        FewshotError: it is not.
    """
    if value not in (choices := tuple(choices)):
        raise FewshotError(f"{name} is {value!r}; it must be {' or '.join(map(repr, choices))}")
