"""Memory-augmented neural networks (Santoro et al., arXiv:1605.06065).

Shapes: R heads, W values a slot of the memory, H units of the LSTM, T items of a sequence.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Natural, Positive, Share
from fewshot.backbones.base import Backbone
from fewshot.engine.randomness import orders, reordered
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners.embedding import joined
from fewshot.learners.model_based.memory import Memory, access
from fewshot.learners.model_based.sequence import SequenceLearner
from fewshot.learners.outcome import Outcome


class State(NamedTuple):
    """A sequence so far: memory, last reads (B, R*W), LSTM state (B, H), last label (B, N)."""

    memory: Memory
    reads: Tensor
    hidden: Tensor
    cell: Tensor
    label: Tensor


class MANN(SequenceLearner):
    """MANN: an LSTM that writes what it sees into a memory, over what it used least.

    Paper: arXiv:1605.06065.

    Each item comes with the label of the one before it. The protocol `episode` reads the support,
    then each query by itself. `sequence` is the paper's: support and query are one sequence in
    random order, the loss is that of every item, and `accuracy_instance1`, `accuracy_instance2`,
    ... are the accuracies at the first, second, ... item of a class; `accuracy` is that of the
    first item after `shot` others of its class (1-shot: the second).

    Args:
        backbone: the network from inputs to features; the paper flattens the image (`Pixels`).
        hidden: units of the LSTM (the paper: 200).
        slots: slots of the memory (the paper: 128).
        slot_size: values of a slot (the paper: 40).
        heads: read heads, each of which also writes (the paper: 4).
        usage_decay: what is left of a slot's usage a step later (the paper: 0.95).
        sharpness: the cosine is multiplied by it before the softmax. The paper's 1 reads little
            more than the mean of all slots, at most 2 % of one; 10 reads the slot that matches.
        protocol: `episode` or `sequence`, in training and evaluation.
        normalise: give each example's features the mean 0 and the variance 1, without which the
            LSTM learns slowly from features that are all positive, as those after a ReLU.
        warmup_steps: meta-steps of training by the protocol `episode`, before those of `sequence`.
            A network that begins with sequences is long content with counting which labels have not
            come yet.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        hidden: Count = 200,
        slots: Count = 128,
        slot_size: Count = 40,
        heads: Count = 4,
        usage_decay: Share = 0.95,
        sharpness: Positive = 1.0,
        protocol: Literal["episode", "sequence"] = "episode",
        normalise: bool = False,
        warmup_steps: Natural = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if heads > slots:
            raise FewshotError(
                f"heads is {heads}, more than the {slots} slots they write to; set heads <= slots"
            )
        self.slots, self.slot_size, self.heads = slots, slot_size, heads
        self.usage_decay, self.sharpness = usage_decay, sharpness
        self.protocol, self.warmup_steps = protocol, warmup_steps
        self.norm = (
            nn.LayerNorm(self.features, elementwise_affine=False) if normalise else nn.Identity()
        )
        self.controller = nn.LSTMCell(self.features + self.task.one_way + heads * slot_size, hidden)
        self.interface = nn.Linear(hidden, heads * (slot_size + 1))
        self.output = nn.Linear(hidden + heads * slot_size, self.task.one_way)

    def start(self, like: Tensor) -> State:
        """An empty memory for each of B sequences (B, ...)."""
        b, hidden = len(like), self.controller.hidden_size
        memory = Memory(
            like.new_zeros(b, self.slots, self.slot_size),
            like.new_zeros(b, self.slots),
            like.new_zeros(b, self.heads, self.slots),
        )
        sizes = (self.heads * self.slot_size, hidden, hidden, self.task.one_way)
        return State(memory, *(like.new_zeros(b, size) for size in sizes))

    def step(self, state: State, features: Tensor) -> tuple[State, Tensor]:
        """The state after an unlabelled item of `features` (B, D), and its logits (B, N)."""
        inputs = torch.cat([self.norm(features), state.label, state.reads], -1)
        hidden, cell = self.controller(inputs, (state.hidden, state.cell))
        raw = self.interface(hidden).view(len(hidden), self.heads, -1)
        keys, gates = raw[..., :-1].tanh(), raw[..., -1].sigmoid()
        memory, reads = access(state.memory, keys, gates, self.usage_decay, self.sharpness)
        logits = self.output(torch.cat([hidden, reads.flatten(1)], -1))
        return State(memory, reads.flatten(1), hidden, cell, state.label), logits

    def follow(self, items: Tensor, labels: Tensor) -> tuple[State, Tensor]:
        """The state after items (B, T, D) with labels (B, T), and their logits (B, T, N).

        Each item's logits come before its label is seen.
        """
        state, found = self.start(items[:, 0]), []
        for item, label in zip(
            items.unbind(1), self.one_hot(labels, items.dtype).unbind(1), strict=True
        ):
            state, logits = self.step(state, item)
            state = state._replace(label=label)
            found.append(logits)
        return state, torch.stack(found, 1)

    def read(self, support: Examples) -> State:
        """The state after the support."""
        assert isinstance(support.inputs, Tensor)
        return self.follow(support.inputs, support.targets)[0]

    def answer(self, kept: State, queries: Tensor) -> Tensor:
        """Logits of each query as the one item after the support."""
        n = queries.shape[1]
        memory = Memory(*(part.repeat_interleave(n, 0) for part in kept.memory))
        others = (part.repeat_interleave(n, 0) for part in kept[1:])
        logits = self.step(State(memory, *others), queries.flatten(0, 1))[1]
        return logits.view(-1, n, self.task.one_way)

    def outcome(self, embedded: Episode, episodes: Episode, training: bool) -> Outcome:
        """By the protocol."""
        if self.protocol == "episode" or (training and self.global_step < self.warmup_steps):
            return super().outcome(embedded, episodes, training)
        items, labels = joined(embedded, 1), torch.cat([part.targets for part in embedded], 1)
        assert isinstance(items, Tensor)
        order = orders(joined(episodes, 1))
        in_turn = reordered(labels, order)
        _, logits = self.follow(reordered(items, order), in_turn)
        size = embedded.support.targets.shape[1]
        loss = (
            F.cross_entropy(logits.flatten(0, 1), in_turn.flatten(), reduction="none")
            .view(order.shape)
            .mean(1)
        )
        by_instance = instance_accuracies(logits.argmax(-1) == in_turn, in_turn, self.task.one_way)
        metrics = {f"accuracy_instance{i + 1}": value for i, value in enumerate(by_instance)}
        metrics = {"accuracy": by_instance[size // self.task.one_way], **metrics}
        return Outcome(loss, metrics, reordered(logits, order.argsort(1))[:, size:])


def instance_accuracies(right: Tensor, labels: Tensor, way: int) -> list[Tensor]:
    """The share (B,) of right predictions (B, T) at each class's first item, second, and so on."""
    # (B, T): its number in its class
    seen = F.one_hot(labels, way).cumsum(1).gather(2, labels[..., None])[..., 0]
    masks = [(seen == i + 1).float() for i in range(labels.shape[1] // way)]
    return [(right * mask).sum(1) / mask.sum(1) for mask in masks]
