"""torchmetrics by its parts: a run needs two of its classes, but Lightning imports it whole.

The package's own file imports every metric there is, and with them scipy, transformers and
torchvision wherever they are installed: two seconds of every process that trains. Here that file
runs as soon as anybody asks for a name that is not in `PARTS`, in the same module. Whoever uses
torchmetrics, then or later, finds all of it.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from threading import RLock
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"
PARTS: Mapping[str, str] = {
    "__version__": "__about__",
    "rank_zero_warn": "utilities",  # before `metric`: they import one another
    "Metric": "metric",
    "MetricCollection": "collections",
}
"""Names that Lightning asks for, and what must be imported before them, by the module of each."""


def import_metrics_late() -> None:
    """Have torchmetrics imported by its parts, if nobody has imported it yet."""
    if PACKAGE not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchmetrics, once, and has another loader load it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(PACKAGE)
        if spec is not None and spec.loader is not None:
            spec.loader = _ByParts(spec.loader)
        return spec


class _ByParts(Loader):
    """Gives the module its `PARTS`, and a `__getattr__` (PEP 562) that adds the rest."""

    def __init__(self, own: Loader) -> None:
        self.own, self.lock = own, RLock()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.own
        # what the parts ask for while they are imported; the whole sets its level
        module._logger = logging.getLogger(PACKAGE)
        try:
            parts = {n: getattr(import_module(f"{PACKAGE}.{p}"), n) for n, p in PARTS.items()}
        except (ImportError, AttributeError):  # of a version whose parts are others
            for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
                del sys.modules[name]
            self.own.exec_module(module)
            return

        def rest(name: str) -> Any:
            with self.lock:  # as `importlib.util.LazyLoader` does
                if vars(module).pop("__getattr__", None) is not None:
                    self.own.exec_module(module)
            return getattr(module, name)

        vars(module).update(parts, __getattr__=rest)
