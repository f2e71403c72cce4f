"""What a policy remembers of a trial: the state of a recurrent network, or all that it has seen.

Shapes: n trials, T steps, C values of a step's input, D of what comes of it.
"""

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fewshot.errors import FewshotError
from fewshot.learners.model_based.causal import CausalAttention, CausalLayer, DenseBlock

MemoryKind: TypeAlias = Literal["gru", "lstm", "snail"]


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

    def __init__(self, kind: Literal["gru", "lstm"], size: int, hidden: int) -> None:
        super().__init__()
        make = nn.GRU if kind == "gru" else nn.LSTM
        self.network, self.out_features = make(size, hidden, batch_first=True), hidden

    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """The network's outputs, and its state."""
        outputs, state = self.network(inputs, memory)
        return outputs, state


class DeepRecurrent(TrialMemory):
    """A recurrent network between two layers, which read a step beside the one before.

    What came of an action is a matter of where it was taken: only both steps together say so, and a
    layer is needed to take them together. The layer behind reads what is remembered beside where
    the trial is now. Deep input and output of Pascanu et al. (arXiv:1312.6026).
    """

    def __init__(self, kind: Literal["gru", "lstm"], size: int, hidden: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(2 * size, hidden), nn.ReLU())
        self.recurrent = Recurrent(kind, hidden, hidden)
        self.behind = nn.Sequential(nn.Linear(hidden + 2 * size, hidden), nn.ReLU())
        self.out_features = hidden

    def forward(self, inputs: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """The outputs; the memory is the network's state and the last step's input."""
        state, last = (None, torch.zeros_like(inputs[:, :1])) if memory is None else memory
        both = torch.cat([inputs, torch.cat([last, inputs[:, :-1]], 1)], -1)
        outputs, state = self.recurrent(self.before(both), state)
        return self.behind(torch.cat([outputs, both], -1)), (state, inputs[:, -1:])


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


def memory_of_trials(
    kind: MemoryKind, deep: bool, size: int, hidden: int, steps: int
) -> TrialMemory:
    """The memory of trials of `steps` steps of `size` values.

    Raises:
        FewshotError: `deep`, of what has layers of its own.
    """
    if kind != "snail":
        return (DeepRecurrent if deep else Recurrent)(kind, size, hidden)
    if deep:
        raise FewshotError("the memory snail has layers of its own; leave deep at false")
    return Causal(size, hidden, steps)
