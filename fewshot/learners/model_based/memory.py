"""A memory with least recently used access (Santoro et al., arXiv:1605.06065).

Shapes: B sequences, R heads, M slots of memory, W values a slot.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""Added to squared norms, so that the cosine with an empty slot is 0 with a moderate gradient."""


class Memory(NamedTuple):
    """The memory: content (B, M, W), usage of each slot (B, M), last read weights (B, R, M)."""

    content: Tensor
    usage: Tensor
    weights: Tensor


def access(
    memory: Memory, keys: Tensor, gates: Tensor, decay: float, sharpness: float = 1.0
) -> tuple[Memory, Tensor]:
    """Write to the memory and read from it: least recently used access.

    Head j writes its key to the slots that it last read and, by 1 - gate, to the j-th least used
    slot, which is emptied first; it then reads the mean of the slots, weighted by the softmax of
    their cosine with the key. With one head this is the paper's rule; for several it leaves open
    which head has which slot.

    Args:
        memory: before.
        keys: (B, R, W).
        gates: (B, R) in 0..1.
        decay: what is left of the usage.
        sharpness: of the softmax.

    Returns:
        the memory after, and what each head read (B, R, W).
    """
    slots = memory.usage.shape[1]
    least_used = memory.usage.argsort(dim=1, stable=True)[:, : keys.shape[1]]  # (B, R)
    least = F.one_hot(least_used, slots).to(keys.dtype)  # (B, R, M)
    write = gates[..., None] * memory.weights + (1 - gates[..., None]) * least
    content = memory.content * (1 - least.sum(1))[..., None] + write.mT @ keys
    weights = (sharpness * cosine(keys, content)).softmax(-1)
    usage = decay * memory.usage + (weights + write).sum(1)
    return Memory(content, usage, weights), weights @ content


def cosine(keys: Tensor, content: Tensor) -> Tensor:
    """Cosine (B, R, M) of keys (B, R, W) and slots (B, M, W); 0 for an empty slot."""
    norms = [(vectors.square().sum(-1) + EPSILON).sqrt() for vectors in (keys, content)]
    return keys @ content.mT / (norms[0][..., None] * norms[1][:, None])
