"""Descent of class prototypes by Adam, for all episodes of a meta-batch at once.

Gradients written out. Shapes: "..." is the axis B of a meta-batch, or nothing; n examples, N
classes, D features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.learners.transfer.feature_head import Labelled

EPSILON = 1e-12
"""What stands under the logarithm of a probability beside it."""

CACHED = 2**22
"""Bytes of the features that a CPU descends on at once.

Each step reads all of them: two products as TIM's, of 8 episodes of 80 examples with 1280 features,
alone take 62 us an episode, those of 64 episodes 118 (a core of an AMD EPYC).
"""


def few_at_a_time(
    answer: Callable[[Labelled, Tensor], Tensor], support: Labelled, queries: Tensor
) -> Tensor:
    """Logits (..., n, N) that `answer` gives of query features (..., n, D), in parts on a CPU."""
    if queries.dim() != 3 or queries.device.type != "cpu":
        return answer(support, queries)
    an_episode = (support.features[0].numel() + queries[0].numel()) * queries.element_size()
    size = max(1, CACHED // an_episode)
    parts = (torch.split(tensor, size) for tensor in (*support, queries))
    return torch.cat([answer(Labelled(*known), new) for *known, new in zip(*parts, strict=True)])


def tuned(
    prototypes: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, lr: float
) -> Tensor:
    """Prototypes (..., N, D) after so many steps of Adam on the loss of each episode.

    Adam moves each number by its own gradients alone, so that episodes do not touch one another.

    Args:
        prototypes: where they start.
        gradient: of the losses, from prototypes (..., N, D) to the same shape.
        steps: of Adam.
        lr: its learning rate.
    """
    with torch.inference_mode(False), torch.no_grad():
        # inference mode's tensors may not be changed outside of it; a clone may
        moved = prototypes.detach().clone()
        optimizer = torch.optim.Adam([moved], lr=lr, fused=True)
        for _ in range(steps):
            moved.grad = gradient(moved)
            optimizer.step()
    return moved.detach()


def entropy_slopes(probabilities: Tensor) -> Tensor:
    """The derivative of the entropy -sum p log(p + EPSILON) by each p."""
    p = probabilities + EPSILON
    return -(p.log() + probabilities / p)


def slopes_by_logits(
    p: Tensor, labels: Tensor, weight: float, slopes: Callable[[Tensor], Tensor]
) -> Tensor:
    """The derivative of a loss by its logits, whose softmax over N is p, both (..., N, S + n).

    The loss is `weight` times the support's mean cross-entropy, and a loss of the queries.

    Args:
        p: of the support, then of the queries.
        labels: the support's, one-hot (..., S, N).
        weight: of the cross-entropy.
        slopes: n times the derivative of the queries' loss by their probabilities (..., N, n).
    """
    known = labels.shape[-2]
    of_support = (p[..., :known] - labels.mT) * (weight / known)
    guessed = p[..., known:]
    of_queries = through_softmax(guessed, slopes(guessed)) / guessed.shape[-1]
    return torch.cat([of_support, of_queries], -1)


def through_softmax(probabilities: Tensor, slopes: Tensor) -> Tensor:
    """A derivative by logits, of that by their softmax p over N: p (s - sum p s), all (..., N, n).

    Classes come first: sums over few numbers of many rows would take many steps.
    """
    along = (probabilities * slopes).sum(-2, keepdim=True)
    return probabilities * (slopes - along)
