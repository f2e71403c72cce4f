"""A logger made like those of services: it numbers no folders, and takes pictures and tables."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger


class Service(Logger):
    """Notes what it is given in a file of its own."""

    version = None

    def __init__(self, save_dir: str, project: str = "project") -> None:
        super().__init__()
        self._save_dir, self._project = save_dir, project

    @property
    def name(self) -> str:
        return self._project

    @property
    def save_dir(self) -> str:
        return self._save_dir

    def note(self, *words: Any) -> None:
        Path(self._save_dir).mkdir(parents=True, exist_ok=True)
        with Path(self._save_dir, f"{self._project}.log").open("a") as file:
            print(*words, file=file)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.note("metrics", *metrics)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        pass

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        (image,) = images
        self.note("image", key, image.shape[-1], step)

    def log_table(
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        assert all(len(row) == len(columns) for row in data)
        self.note("table", key, len(data), columns[0])


class Plain(Service):
    """One that takes neither pictures nor tables."""

    log_image = log_table = property()  # as if there were none
