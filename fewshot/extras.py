"""Optional packages: imported when used, with the remedy where they are missing."""

import importlib
from typing import Any

from fewshot.errors import FewshotError


def require(package: str, extra: str) -> Any:
    """The imported `package`, which ``pip install 'fewshot[extra]'`` installs.

    Raises:
        FewshotError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise FewshotError(f"{package} is not installed; pip install 'fewshot[{extra}]'") from error
