"""Features of examples that an unchanging network has embedded before: held, found, forgotten.

A validation or test asks for an example in many episodes. While nothing changes, its features are
the same each time. Nobody has to say so: what a learner and its network do is looked at.

- Features are held under a fingerprint of what the network is given, whoever made it.
- They are forgotten when anything on the learner changes: a weight, a setting, a mode, precision.
- A network whose features depend on what else is in the batch, on chance, or on what it did
  before, is found out by a trial, and embeds everything as ever.

Shapes: n examples, c of a batch of fixed size, m whose features are not held.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from fewshot.backbones.pretrained import PretrainedVision
from fewshot.backbones.text import by_width
from fewshot.engine.compiling.dependencies import Dependencies
from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.feature_bank import FeatureBank
from fewshot.engine.fingerprints import fingerprint, fingerprints
from fewshot.episodes.types import Inputs, map_tensors

Embed: TypeAlias = Callable[[Inputs], Tensor]

CHUNK_PIXELS = 56_448
"""Pixels of the images that a CPU embeds at once, so that their maps stay in its caches.

The forward pass of Conv4 is 2.6 times as fast with 64 images of 28x28 as with 640 at once, 2.8
times with 8 of 84x84 as with 160; that of ResNet-12 1.25 times with 8 as with 48 (2 cores of an
Intel Xeon).
"""

RESIZED_PIXELS = 200_704
"""The same of networks that resize images to a side of their own, as pre-trained ones do.

They are deeper, with more to do for a pixel. An image of 224x224 takes EfficientNet-Lite0 20 ms
with 4 at once, 23 alone and 29 with 16; ResNet-18 40 ms with 4, 59 alone and 39 with 16 (a core of
an AMD EPYC).
"""

TOGETHER, TOGETHER_ON_DEVICE = 16, 128
"""Examples of a batch at most, on a CPU and elsewhere, where features are held.

All these batches have one size, the last is filled up: a kernel's rounding may depend on the size,
and features must not depend on which episodes ask first. 16 is the smallest whose features of Conv4
and ResNet12 on a CPU are to the bit those of larger batches. Larger ones waste more on filling up
than they save.
"""

LEAST_FLOP = 500_000
"""Operations on an example from which on its features are held: below, as with an MLP, they are
made as quickly as they are found."""

UNCOUNTED = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Layers whose fused kernels torch counts as nothing."""


class FeaturesHeld:
    """The features of what a module has embedded while nothing on it has changed.

    Args:
        module: the learner whose network it is, or the network alone.
        limit: bytes of features.
    """

    def __init__(self, module: nn.Module, limit: int) -> None:
        self.module, self.bank = module, FeatureBank(limit)
        self._dependencies = Dependencies()
        self._state: Hashable = None
        self._tried: dict[Hashable, bool] = {}

    def features(self, embed: Embed, inputs: Inputs) -> Tensor | None:
        """Features (n, ...) of inputs (n, ...).

        None where they are no function of each input alone, or are to be differentiated.
        """
        if torch.is_grad_enabled() or not self.stands_still() or not self.is_known(inputs):
            return None
        found: list[Tensor] = []
        parts = by_width(inputs)
        for places, part in parts:
            if (features := self._part(embed, inputs, places, part)) is None:
                return None
            found.append(features)
        if len(parts) == 1:
            return found[0]
        return torch.cat(found)[torch.cat([places for places, _ in parts]).argsort()]

    def stands_still(self) -> bool:
        """Whether features may be held here: in evaluation mode, and not inside of `vmap`."""
        under_vmap = internal("torch._C._functorch.peek_interpreter_stack")() is not None
        return not under_vmap and not any(module.training for module in self.module.modules())

    def is_known(self, inputs: Inputs) -> bool:
        """Look at the module, and forget all where it has changed; False where nothing tells."""
        if (state := self._look(_device(inputs))) is None:
            return False
        if state != self._state:
            self._state = state
            self._tried.clear()
            self.begin(_device(inputs))
        return True

    def begin(self, device: torch.device) -> None:
        """Begin anew, with a module that was not seen before."""
        self.bank.clear()

    def compare(self, kind: str, keys: Sequence[bytes], features: Tensor) -> None:
        """Hear of features (n, ...) that were made in a trial, with their keys; none twice."""

    def _part(self, embed: Embed, whole: Inputs, places: Tensor, inputs: Inputs) -> Tensor | None:
        """The same of inputs (m, ...), which are those of `whole` at these places, maybe cut."""
        kind, keys = kind_of(inputs), fingerprints(inputs)
        size = batch_size(inputs, getattr(self.module, "backbone", self.module))
        sort = _sort(whole), kind != kind_of(whole)  # texts: those that are cut, of any width
        if sort not in self._tried:
            different = torch.tensor(list({key: i for i, key in enumerate(keys)}.values()))
            if len(different) < min(2, size):
                return None  # nothing to tell by yet
            different = different[:size].to(places.device)
            places_of = different.tolist()
            among = _at(inputs, _filled(different, size))
            # by itself, as a network gets it where no features are held
            copies = _at(whole, places[different[-1:]].expand(max(1, size // 2)))
            found = self._tried_out(embed, among, len(different) - 1, copies)
            self._tried[sort] = found is not None
            if found is not None:
                self.compare(kind, [keys[place] for place in places_of], found[: len(different)])
        if not self._tried[sort]:
            return None

        def embedded(missing: Tensor) -> Tensor:
            """Features (k, ...) of the inputs at these places (k,)."""
            batches = [_filled(part, size) for part in torch.split(missing, size)]
            found = torch.cat([embed(_at(inputs, batch)) for batch in batches])
            return found[: len(missing)]

        return self.bank.features(kind, keys, embedded, places.device)

    def _look(self, on: torch.device) -> Hashable:
        """All that features depend on besides the inputs; None where it cannot be told."""
        device = on.type
        number = self._dependencies.number(self.module)
        tensors = self._dependencies.tensors
        if any(t.layout is not torch.strided or is_lazy(t) or t.is_meta for t in tensors):
            return None
        cast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return number, fingerprint(tensors), cast

    def _tried_out(self, embed: Embed, among: Inputs, place: int, copies: Inputs) -> Tensor | None:
        """Features (n, ...) of a trial; None where an input's are cheap, or not its own alone.

        It stands at a `place` among others, and in copies of itself alone. Neither batch may
        change a thing or draw a random number, and they may differ by no more than rounding.
        """
        device = _device(among)
        before, devices = self._look(device), [device] if device.type != "cpu" else []
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            drawn = _generators(device)
            with FlopCounterMode(display=False) as counter:
                some = embed(among)
            same = embed(copies)
            pairs = zip(drawn, _generators(device), strict=True)
            drew = not all(torch.equal(*pair) for pair in pairs)
        uncounted = any(isinstance(module, UNCOUNTED) for module in self.module.modules())
        cheap = not uncounted and counter.get_total_flops() < LEAST_FLOP * _count(among)
        if cheap or drew or self._look(device) != before:
            return None
        if len(some) != _count(among) or len(same) != _count(copies):
            return None
        return some if agree(some[place], same[-1]) else None


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether features of one input, made in two batches, differ by no more than rounding."""
    cast = torch.is_autocast_enabled(one.device.type)
    least = torch.get_autocast_dtype(one.device.type) if cast else one.dtype
    reach = torch.finfo(least).eps ** 0.5 * one.abs().amax()
    return bool(((one - other).abs() <= reach).all())


def batch_size(inputs: Inputs, network: nn.Module) -> int:
    """How many of inputs (n, ...) a network embeds at once."""
    if _device(inputs).type != "cpu":
        return TOGETHER_ON_DEVICE
    return min(TOGETHER, chunk_of(inputs, network) or TOGETHER)


def chunk_of(inputs: Inputs, network: nn.Module) -> int | None:
    """How many of inputs (n, ...) a CPU embeds at once; None where there is no reason to part them.

    There is for images on a CPU.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() < 4 or inputs.device.type != "cpu":
        return None
    if isinstance(network, PretrainedVision):
        return max(1, RESIZED_PIXELS // network.side**2)
    return max(1, CHUNK_PIXELS // (inputs.shape[-2] * inputs.shape[-1]))


def _device(inputs: Inputs) -> torch.device:
    return (next(iter(inputs.values())) if isinstance(inputs, dict) else inputs).device


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


def kind_of(inputs: Inputs) -> str:
    """What inputs (n, ...) are besides their values."""
    parts = inputs if isinstance(inputs, dict) else {"": inputs}
    told = ((name, str(part.dtype), *part.shape[1:]) for name, part in sorted(parts.items()))
    return repr(tuple(told))


def _sort(inputs: Inputs) -> Hashable:
    """The kind of inputs (n, ...), whatever the width of texts."""
    parts = inputs if isinstance(inputs, dict) else {"": inputs}
    return kind_of(
        {name: part[:, :0] if name == "tokens" else part for name, part in parts.items()}
    )


def _at(inputs: Inputs, places: Tensor) -> Inputs:
    """The inputs at these places (m,)."""
    found: Inputs = map_tensors(lambda part: part[places], inputs)
    return found


def _filled(places: Tensor, size: int) -> Tensor:
    """So many places: those given, at most `size`, and then the first of them again."""
    return torch.cat([places, places[:1].expand(size - len(places))])


def _generators(device: torch.device) -> list[Tensor]:
    """The states of the generators that operations on a device draw from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states
