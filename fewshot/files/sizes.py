"""Sizes of files as people write and read them."""

import re

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_of(text: str) -> float | None:
    """Bytes of a number with a unit; None of what is none.

    >>> size_of("1.5GB"), size_of("200 mb"), size_of("much")
    (1500000000.0, 200000000.0, None)
    """
    return measured(text.upper(), UNITS)


def measured(text: str, units: dict[str, int]) -> float | None:
    """What a number with one of `units` is; None of what is none."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]


def shown_size(size: float) -> str:
    """A number of bytes for people.

    >>> shown_size(999), shown_size(1_234_000), shown_size(20e9)
    ('999 B', '1.2 MB', '20 GB')
    """
    unit, of_unit = [(unit, of) for unit, of in UNITS.items() if of <= max(size, 1)][-1]
    value = size / of_unit
    return f"{value:.{0 if unit == 'B' or value >= 10 else 1}f} {unit}"
