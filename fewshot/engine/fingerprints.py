"""Fingerprints: 128 bits that tell the contents of tensors apart, computed where the tensors lie.

Two sums of a content's words of 32 bits, each word times a fixed random number of 64 bits for its
place, modulo 2^64. Integers wrap alike everywhere: a content has one fingerprint, whatever the
device, the batch it comes in and the order of a sum. That two given contents have the same one is a
matter of how the numbers were drawn. Words differ by less than 2^32, so that at most 31 bits of a
difference's product are 0 whatever the number: the probability is 2^-33 a sum at most, 2^-66 in
all. That is no protection from somebody who looks for such a pair.

Shapes: n examples, P words.
"""

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from fewshot.engine.compiling.torch_internals import internal
from fewshot.episodes.types import Inputs

SUMS = 2
ROW = 4096  # words of a row, where much is taken as one content
LARGE, SAMPLE = 2**13, 2**12  # values of a weight of which not all are read, and of it that are
WORDS, CPU_WORDS = 2**25, 2**16  # at once; what a CPU makes of them stays in its caches
VERSION = internal("torch.Tensor._version")


def fingerprints(inputs: Inputs) -> list[bytes]:
    """One for each of inputs (n, ...): of their values alone, not of their shape."""
    parts = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, dict) else [inputs]
    contents = [words(part.reshape(len(part), -1)) for part in parts]
    return _keys(sums(contents[0] if len(contents) == 1 else torch.cat(contents, 1)))


def fingerprint(tensors: Iterable[Tensor]) -> bytes:
    """The one of all that these tensors hold, in their order and in that of their memory.

    Of a large one every n-th value, and how often it was written to: what a look at a network costs
    has to be little beside what the network does.
    """
    contents, written = [], []
    for tensor in tensors:
        contents.append(words(_seen(tensor)[None]))
        written.append(0 if tensor.is_inference() else VERSION.__get__(tensor))
    by_device: dict[torch.device, list[Tensor]] = {}
    for content in contents:
        by_device.setdefault(content.device, []).append(content)
    rows = [_one(torch.cat(parts, 1)).cpu() for parts in by_device.values()]
    return _keys(sums(torch.cat([*rows, words(torch.tensor([written]))], 1)))[0]


def _seen(tensor: Tensor) -> Tensor:
    """The values (m,) of a tensor that count; no copy of it is made for them."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    flat = tensor.detach().permute(order).reshape(-1)
    # an odd step, so that no column of a matrix is passed over
    return flat[:: len(flat) // SAMPLE | 1] if len(flat) > LARGE else flat


def words(values: Tensor) -> Tensor:
    """What values (n, m) are made of: integers of 32 bits, or fewer if those do not go up, (n, P).

    Not yet as 64 bits, of which `sums` makes a few at a time: no copy of all leaves the caches.
    """
    values = values.detach().contiguous()
    odd = values.shape[-1] * values.element_size() % 4
    return values.view({0: torch.int32, 2: torch.int16}.get(odd, torch.uint8))


def sums(content: Tensor) -> Tensor:
    """The sums (n, 2) of words (n, P)."""
    length = content.shape[1]
    factors = _factors(length, content.device)
    rows = max(1, (CPU_WORDS if content.device.type == "cpu" else WORDS) // max(1, length))
    return torch.cat(
        [
            torch.stack([(part * one).sum(1) for one in factors], 1)
            for part in map(Tensor.long, torch.split(content, rows))
        ]
    )


@lru_cache(maxsize=16)
def _factors(length: int, device: torch.device) -> Tensor:
    """The numbers (2, P) of P places; those of fewer places are the first of them."""
    generator = torch.Generator("cpu").manual_seed(20_211)
    drawn = torch.randint(
        -(2**63), 2**63 - 1, (length, SUMS), generator=generator, dtype=torch.int64, device="cpu"
    )
    return drawn.T.contiguous().to(device)


def _one(content: Tensor) -> Tensor:
    """The sums (1, 2) of one content (1, P), by those of its rows."""
    whole = content.shape[1] // ROW * ROW
    parts = [sums(content[:, :whole].view(-1, ROW)).view(1, -1), content[:, whole:]]
    return sums(torch.cat(parts, 1))


def _keys(table: Tensor) -> list[bytes]:
    content, size = table.cpu().numpy().tobytes(), SUMS * 8
    return [content[i : i + size] for i in range(0, len(content), size)]
