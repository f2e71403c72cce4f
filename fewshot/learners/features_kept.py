"""Features of a network that does not change: embedded once, and kept in files for other runs.

A frozen network is a function of one example. Its features are looked up by what it is given, as
`fewshot.learners.features_held` does, in training too, and lie in a folder under a hash of the
network: its layers, its arguments (how it sees images among them), every weight, the precision. A
batch of what was read is embedded again before anything is believed.

Shapes: n examples.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fewshot.backbones.base import features_of
from fewshot.backbones.text import by_width
from fewshot.engine.feature_files import FeatureFiles, identity
from fewshot.engine.fingerprints import fingerprints
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError
from fewshot.extras import DISTRIBUTION
from fewshot.files.caches import features_in, removed, to_go
from fewshot.files.places import caches_in_use
from fewshot.files.sizes import size_of
from fewshot.learners.features_held import FeaturesHeld, agree, kind_of

log = logging.getLogger(__name__)

SIZE_VARIABLE, MOST = "FEWSHOT_FEATURES_SIZE", "10GB"
SAVE_EVERY = 30.0
"""Seconds of embedding after which what is done is written: a killed run loses no more."""


class FeaturesKept(FeaturesHeld):
    """The features of a frozen network.

    Args:
        network: the backbone.
        limit: bytes of features in memory; what goes beyond is neither held nor written.
        root: the folder of all networks' folders; None keeps features for this run alone.
    """

    def __init__(self, network: nn.Module, limit: int, root: Path | None) -> None:
        super().__init__(network, limit)
        self.root, self.most = root, _most_bytes()
        self.files: FeatureFiles | None = None
        self.ahead: set[str] = set()  # splits whose examples were embedded ahead of the episodes
        self._believed: set[str] = set()

    def of(self, inputs: Inputs) -> Tensor:
        """Features (n, D) of inputs (n, ...)."""
        tensors = inputs.values() if isinstance(inputs, dict) else (inputs,)
        found = None
        if not any(tensor.requires_grad for tensor in tensors):
            with torch.no_grad():
                found = self.features(partial(features_of, self.module), inputs)
        return features_of(self.module, inputs) if found is None else found

    def begin(self, device: torch.device) -> None:
        """Read what earlier runs have kept of this network."""
        super().begin(device)
        self.ahead.clear()
        self._believed.clear()
        if self.root is None:
            return
        cast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        name = f"{type(self.module).__name__}-"
        name += identity(self.module, device.type, cast, version(DISTRIBUTION))
        self.files = FeatureFiles(self.root / name)
        self.files.read(self.bank, device)

    def compare(self, kind: str, keys: Sequence[bytes], features: Tensor) -> None:
        """Forget all that was read if features of examples made anew are others."""
        if kind in self._believed:
            return
        places, held = self.bank.at(kind, keys)
        if held is not None and not _agree(held, features[places]):
            assert self.files is not None  # what this run made itself has been compared
            rank_zero_info(
                f"{self.files.folder} holds features of another network: all are made again"
            )
            self.files.remove()
            self.bank.clear()
        self._believed.add(kind)

    def embed_ahead(
        self,
        split: str,
        batches: Iterable[Inputs],
        number: int,
        gathered: Callable[[dict[Any, Any]], list[dict[Any, Any]]] | None = None,
        writes: bool = True,
    ) -> None:
        """Embed each example of a split that is not held, before episodes ask; say how many.

        Args:
            split: what the user calls it.
            batches: this rank's share of the examples, as the network is given them.
            number: how many examples the split has.
            gathered: from what this rank holds of the split to what each rank does.
            writes: whether this rank writes for all, when all is done.
        """
        started = saved = time.monotonic()
        before, seen, mine = -1, 0, dict[str, list[bytes]]()
        for inputs in batches:
            if before < 0 and self.is_known(inputs):  # which reads what there is
                before = len(self.bank)
            self.of(inputs)
            for _, part in by_width(inputs):
                keys = fingerprints(part)
                mine.setdefault(kind_of(part), []).extend(keys)
                seen += len(keys)
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
                rank_zero_info(f"embedding the {number} {split} examples: {seen} are done")
        fresh = len(self.bank) - before if before >= 0 else 0
        if gathered is not None:
            self._exchange(mine, gathered)
        self.ahead.add(split)
        if writes:
            self.save()
        elif self.files is not None:
            self.files.withdraw()
        where = f" in {self.files.folder}" if self.files and self.files.saved else ""
        if fresh:
            share = f"{seen}" if gathered is None else f"this process's {seen}"
            took = f"{fresh} of {share} were embedded in {time.monotonic() - started:.1f} s"
            rank_zero_info(f"features of the {number} {split} examples: {took}, kept{where}")
        elif seen and where:
            rank_zero_info(f"features of the {number} {split} examples: found{where}")

    def save(self) -> None:
        """Write what is new to the files, and remove those of other networks beyond the bound."""
        if self.files is not None and self.files.write(self.bank) and self.root is not None:
            going = to_go(features_in(self.root), self.most, None, caches_in_use())
            with suppress(OSError):  # somebody else's
                for one in removed(going):
                    log.info("removed %s, used least recently", one.path)

    def _exchange(
        self,
        mine: dict[str, list[bytes]],
        gathered: Callable[[dict[Any, Any]], list[dict[Any, Any]]],
    ) -> None:
        """Take over what the other ranks have embedded."""
        own: dict[Any, Any] = {}
        for kind, keys in mine.items():
            places, features = self.bank.at(kind, keys)
            if features is not None:
                own[kind] = [keys[place] for place in places], features.cpu()
        for others in gathered(own):
            for kind, (keys, features) in others.items():
                self.bank.take(kind, keys, features.to(self._device()))

    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def _most_bytes() -> float:
    """Bytes of the features of all networks in a folder, beyond which some go.

    Raises:
        FewshotError: the variable that says so is no size.
    """
    told = os.environ.get(SIZE_VARIABLE) or MOST
    if (size := size_of(told)) is None:
        raise FewshotError(f"{SIZE_VARIABLE} is {told!r}; set it to a size such as {MOST}")
    return size


def _agree(one: Tensor, other: Tensor) -> bool:
    """The same of features (n, ...) of n inputs."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return all(agree(a, b) for a, b in zip(one, other, strict=True))


def stands_still(network: nn.Module) -> bool:
    """Whether nothing of a network with weights trains."""
    weights = [weight.requires_grad for weight in network.parameters()]
    return bool(weights) and not any(weights)
