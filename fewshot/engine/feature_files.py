"""Features of examples in files, for the next run: whole or not at all, and never trusted blindly.

A network has a folder of its own. A file there holds keys and features by kind, and ends with the
checksum of all before. Each process writes files of its own and removes what they hold more of, so
that nobody waits for anybody; what two have written is read together.

Shapes: n examples, D features.
"""

import hashlib
import io
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.engine.feature_bank import FeatureBank
from fewshot.errors import FewshotError
from fewshot.files import atomic_write
from fewshot.files.caches import ENDING
from fewshot.files.places import use_cache

log = logging.getLogger(__name__)

DIGEST = hashlib.sha256().digest_size
KEY = 16  # bytes of a key


class FeatureFiles:
    """What the files of one network hold.

    Args:
        folder: of the network; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: set[Path] = set()  # files whose features the bank has
        self._written: set[Path] = set()
        self.saved = 0  # features that they hold

    def read(self, bank: FeatureBank, device: torch.device) -> None:
        """Put what the files hold into `bank`; say which are cut off, and remove them."""
        use_cache(self.folder)
        for path in sorted(self.folder.glob(f"*{ENDING}")):
            if (content := _content(path)) is None:
                continue
            for kind, (keys, features) in content.items():
                table = keys.numpy().tobytes()
                split = [table[i : i + KEY] for i in range(0, len(table), KEY)]
                bank.take(kind, split, features.to(device))
            self._known.add(path)
        self.saved = len(bank)

    def write(self, bank: FeatureBank) -> bool:
        """Write what `bank` holds, if that is more than the files do; a failure is logged.

        Returns:
            Whether it is written now.
        """
        if len(bank) <= self.saved:
            return False
        names, content = hashlib.sha256(), {}
        for kind, (keys, features) in bank.held().items():
            table = b"".join(keys)
            names.update(repr(kind).encode() + b"".join(sorted(keys)))
            cut = torch.frombuffer(bytearray(table), dtype=torch.uint8).view(-1, KEY)
            content[kind] = (cut, features.cpu().clone())
        path = self.folder / f"{names.hexdigest()[:16]}{ENDING}"
        payload = io.BytesIO()
        torch.save(content, payload)
        try:
            with atomic_write(path, binary=True) as file:
                file.write(payload.getvalue())
                file.write(hashlib.sha256(payload.getvalue()).digest())
        except (OSError, FewshotError) as error:
            log.warning("cannot keep features in %s (%s): going on without", self.folder, error)
            self.saved = len(bank)
            return False
        for before in self._known - {path}:
            before.unlink(missing_ok=True)
        self._written = {path} - self._known
        self._known, self.saved = {path}, len(bank)
        return True

    def withdraw(self) -> None:
        """Remove what this process has written; another one has it."""
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()

    def remove(self) -> None:
        """Remove all files."""
        for path in self.folder.glob(f"*{ENDING}"):
            path.unlink(missing_ok=True)
        self._known, self.saved = set(), 0


def _content(path: Path) -> dict[Any, tuple[Tensor, Tensor]] | None:
    """What a file holds; None of one that another process has removed, or that is cut off."""
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s): its examples are embedded again", path, error)
        return None
    payload, digest = memoryview(written)[:-DIGEST], written[-DIGEST:]
    if hashlib.sha256(payload).digest() == digest:
        try:
            content: dict[Any, tuple[Tensor, Tensor]]
            content = torch.load(io.BytesIO(payload), weights_only=True)
            return content
        except (RuntimeError, pickle.UnpicklingError, EOFError):
            pass  # of a version of torch that writes otherwise
    log.warning("%s is cut off or damaged: its examples are embedded again", path)
    path.unlink(missing_ok=True)
    return None


def identity(network: torch.nn.Module, *facts: object) -> str:
    """Sixteen hexadecimal digits of all that a network's features depend on besides the inputs.

    Its layers, its constructor's arguments, every value of its weights and buffers, and `facts`.
    """
    told = hashlib.sha256(repr((type(network).__module__, network, *facts)).encode())
    told.update(repr(getattr(network, "init_args", None)).encode())
    for name, tensor in _tensors(network):
        told.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        told.update(values.view(torch.uint8).numpy().tobytes())
    return told.hexdigest()[:16]


def _tensors(network: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()
