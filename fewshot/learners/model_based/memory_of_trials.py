"""What a policy remembers of a trial: the state of a recurrent network, or all that it has seen.

Shapes: n trials, T steps, C values of a step's input, D of what comes of it.
"""

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.errors import FewshotError
from fewshot.learners.model_based.causal import CausalAttention, CausalLayer, DenseBlock

MemoryKind: TypeAlias = Literal["gru", "lstm", "snail", "attention"]

HEADS = 4
"""Of an attention."""


class TrialMemory(nn.Module):
    """Reads a trial step by step, or a whole one at once, to the same end."""

    out_features: int

    @abstractmethod
    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """What comes of steps (n, T, C) after what `memory` holds, (n, T, D); and the memory then.

        Without a memory a trial begins.
        """


class Recurrent(TrialMemory):
    """A GRU or an LSTM of `hidden` units (RL^2, arXiv:1611.02779)."""

    def __init__(self, kind: Literal["gru", "lstm"], size: int, hidden: int, layers: int) -> None:
        super().__init__()
        make = nn.GRU if kind == "gru" else nn.LSTM
        self.network = make(size, hidden, layers, batch_first=True)
        self.out_features = hidden

    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """The network's outputs, and its state."""
        outputs, state = self.network(inputs, memory)
        return outputs, state


class Causal(TrialMemory):
    """SNAIL's causal convolutions and attention (arXiv:1707.03141), which hold all inputs.

    Two blocks of convolutions that reach over the whole trial, each followed by an attention.
    """

    def __init__(self, size: int, filters: int, steps: int) -> None:
        super().__init__()
        self.first, self.layers, channels = nn.Linear(size, filters), nn.ModuleList(), filters
        for _ in range(2):
            for i in range(max(1, (steps - 1).bit_length())):
                self.layers.append(DenseBlock(channels, filters, 2**i))
                channels += filters
            self.layers.append(CausalAttention(channels, filters, filters))
            channels += filters
        self.out_features = channels

    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """The channels of all layers; the memory is what each layer was given."""
        items, kept = self.first(inputs), []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, CausalLayer)
            if memory is None:
                kept.append(items)
                added = layer(items)
            else:  # one step more
                added = layer.last(memory[number], items)
                kept.append(torch.cat([memory[number], items], 1))
            items = torch.cat([items, added], -1)
        return items, kept


class AttentionLayer(nn.Module):
    """Attention to steps no later than one's own, then two layers on each step.

    Both are added to what they are given, normalised first (arXiv:2002.04745). Torch's
    `TransformerEncoderLayer` gives the same, but keeps nothing of earlier steps: an agent would
    read the whole trial anew at each one.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.asked = nn.Linear(hidden, 3 * hidden)
        self.read = nn.Linear(hidden, hidden)
        self.alone = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(self, steps: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps (n, T, D) after the keys and values of the `past` (2, n, heads, S, D / heads)."""
        n, length, _ = steps.shape
        parts = self.asked(self.first(steps)).view(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        known = parts[1:] if past is None else torch.cat([past, parts[1:]], 3)
        keys, values = known
        total = keys.shape[2]
        allowed = torch.ones(length, total, dtype=torch.bool, device=steps.device)
        allowed = allowed.tril(total - length)
        read = F.scaled_dot_product_attention(
            parts[0], keys, values, attn_mask=allowed if length > 1 else None
        )
        steps = steps + self.read(read.transpose(1, 2).flatten(2))
        return steps + self.alone(self.second(steps)), known


class Attention(TrialMemory):
    """Layers of causal self-attention (Vaswani et al., arXiv:1706.03762), which hold all steps.

    What a step is like is looked up among all that came before, wherever that was: a recurrent
    network has to carry it. Each step is read beside the one before, and has a place of its own,
    by which the policy knows how much of the trial is left. Steps behind the last have its place.
    """

    def __init__(self, size: int, hidden: int, steps: int, layers: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            nn.Linear(2 * size, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden)
        )
        self.places = nn.Embedding(steps, hidden)
        nn.init.normal_(self.places.weight, std=0.02)
        self.layers = nn.ModuleList(AttentionLayer(hidden) for _ in range(layers))
        self.normalised = nn.LayerNorm(hidden)
        self.out_features = hidden

    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """The last layer's steps; the memory is each layer's keys and values and the last input."""
        nothing = [None] * len(self.layers), torch.zeros_like(inputs[:, :1]), 0
        past, last, begin = nothing if memory is None else memory
        end = begin + inputs.shape[1]
        places = torch.arange(begin, end, device=inputs.device)
        before = torch.cat([last, inputs[:, :-1]], 1)
        steps = self.before(torch.cat([inputs, before], -1))
        steps = steps + self.places(places.clamp(max=self.places.num_embeddings - 1))
        kept = []
        for layer, known in zip(self.layers, past, strict=True):
            steps, known = layer(steps, known)
            kept.append(known)
        return self.normalised(steps), (kept, inputs[:, -1:], end)


def memory_of_trials(
    kind: MemoryKind, size: int, hidden: int, layers: int | None, steps: int
) -> TrialMemory:
    """The memory of trials of `steps` steps of `size` values.

    Raises:
        FewshotError: `layers` of `snail`; `hidden` that the heads of an attention cannot share.
    """
    if kind == "attention":
        if hidden % HEADS:
            raise FewshotError(
                f"hidden={hidden} values cannot be shared by the {HEADS} heads of an attention;"
                f" have a multiple of {HEADS}"
            )
        return Attention(size, hidden, steps, layers or 3)
    if kind != "snail":
        return Recurrent(kind, size, hidden, layers or 1)
    if layers is not None:
        raise FewshotError("the layers of snail follow from the trials; leave layers out")
    return Causal(size, hidden, steps)
