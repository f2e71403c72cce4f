"""Mixed precision: the network in bfloat16, fast weights and meta-gradient in float32."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.engine import episode_map
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Episode, Examples
from fewshot.learners import ANIL, BOIL, FOMAML, MAML, MetaSGD, OptimizationLearner, ProtoMAML

WAY, SHOT, QUERIES, EPISODES, STEPS = 3, 5, 5, 2, 2
LEARNERS: dict[str, tuple[type[OptimizationLearner], dict[str, Any]]] = {
    "MAML": (MAML, {"inner_lr": 0.1}),
    "FOMAML": (FOMAML, {"inner_lr": 0.1}),
    "names": (MAML, {"inner_lr": 0.1, "adapt": ["backbone.layers.3", "head.bias"]}),
    "names, first order": (FOMAML, {"inner_lr": 0.1, "adapt": ["backbone.layers.3", "head.bias"]}),
    "ANIL": (ANIL, {"inner_lr": 0.1}),
    "ANIL, first order": (ANIL, {"inner_lr": 0.1, "first_order": True}),
    "BOIL": (BOIL, {"inner_lr": 0.1}),
    "BOIL, first order": (BOIL, {"inner_lr": 0.1, "first_order": True}),
    "MetaSGD": (MetaSGD, {"initial_rates": (0.05, 0.1)}),
    "ProtoMAML": (ProtoMAML, {"inner_lr": 0.01}),
    "ProtoMAML, first order": (ProtoMAML, {"inner_lr": 0.01, "first_order": True}),
}


class Smooth(nn.Module):
    """Convolutions and both normalisations without kinks, where rounding would switch units."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(2, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Tanh()),
            *(nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten()),
            *(nn.Linear(72, 6), nn.LayerNorm(6), nn.Tanh()),
        )
        self.out_features = 6

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


@pytest.fixture(scope="module")
def batch() -> Episode:
    """Images of a class share a pattern, so that there is something to adapt to."""
    torch.manual_seed(1)
    patterns = torch.rand(EPISODES, WAY, 1, 2, 16, 16)

    def examples(a_class: int) -> Examples:
        images = patterns + 0.3 * torch.randn(EPISODES, WAY, a_class, 2, 16, 16)
        return Examples(
            images.flatten(1, 2), torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1)
        )

    return Episode(examples(SHOT), examples(QUERIES))


def make(name: str, parallel: Parallel) -> OptimizationLearner:
    torch.manual_seed(0)
    cls, arguments = LEARNERS[name]
    task = {"kind": "classification", "way": WAY}
    return cls(Smooth(), task=task, inner_steps=STEPS, episode_parallel=parallel, **arguments)


def gradients(learner: OptimizationLearner, batch: Episode, half: bool) -> dict[str, Tensor]:
    """The meta-gradient by name.

    Forward pass under autocast, as a Trainer of precision bf16-mixed runs it.
    """
    learner.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for outcome in learner.run(batch, training=True):
            torch.autograd.backward(outcome.loss.sum() / EPISODES)
    found = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    assert list(found) == [name for name, _ in learner.named_parameters()], (
        "every parameter has a gradient"
    )
    return found


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_meta_gradient_is_close_to_that_of_float32(
    name: str, parallel: Parallel, batch: Episode
) -> None:
    learner = make(name, parallel)
    exact, mixed = (gradients(learner, batch, half) for half in (False, True))
    assert all(gradient.dtype == torch.float32 for gradient in mixed.values())
    assert not torch.equal(flat(exact), flat(mixed)), "bfloat16 was in force"
    for prefix in ("", "backbone", "head"):
        one, two = (
            {n: g for n, g in found.items() if n.startswith(prefix)} for found in (exact, mixed)
        )
        if one:
            assert F.cosine_similarity(flat(one), flat(two), dim=0) > 0.999, prefix
            assert flat(two).norm().item() == pytest.approx(flat(one).norm().item(), rel=0.02), (
                prefix
            )


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_fast_weights_are_float32(
    name: str, parallel: Parallel, batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(name, parallel)
    original = learner.inner_loop
    seen: list[set[torch.dtype]] = []

    def watched(support: Examples, steps: int) -> Iterator[Weights]:
        for weights in original(support, steps):
            seen.append({weight.dtype for weight in weights.values()})
            yield weights

    monkeypatch.setattr(learner, "inner_loop", watched)
    with torch.autocast("cpu", torch.bfloat16):
        outcomes = list(learner.run(batch, training=True))
        learner.evaluate(batch)
    assert len(seen) >= 2 * (STEPS + 1)
    assert all(dtypes == {torch.float32} for dtypes in seen)
    assert all(outcome.loss.dtype == torch.float32 for outcome in outcomes)


@pytest.mark.parametrize("name", LEARNERS)
def test_finding_out_what_auto_means_leaves_no_casts_behind(
    name: str, batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # autocast keeps the casts of parameters; those of a pass without gradients would cut the first
    # step's graph
    monkeypatch.setattr(episode_map, "SMALL_FLOP", 0)
    auto, loop = make(name, "auto"), make(name, "loop")
    assert torch.equal(flat(gradients(auto, batch, True)), flat(gradients(loop, batch, True)))
