"""Optional packages: imported when used, with the remedy where they are missing."""

import importlib
from typing import Any

from fewshot.errors import FewshotError

DISTRIBUTION = "fewshot-lightning"
"""What is installed: the index has a ``few-shot``, and takes ``fewshot`` for the same name."""


def require(package: str, extra: str) -> Any:
    """The imported `package`, which ``pip install 'fewshot-lightning[extra]'`` installs.

    Raises:
        FewshotError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
        raise FewshotError(f"{package} is not installed; {remedy}") from error
