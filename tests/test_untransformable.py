"""Networks that torch.func cannot transform: the default takes the loop, what is asked for refuses.

Each network is one that plain autograd takes; the loop alone runs it as it is written.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fewshot
import fewshot.engine.runner
from fewshot import ANIL, CAVIA, IMAML, MAML, FewshotError, FineTune, MetaSGD, Reptile
from fewshot.cli.catalogue import learners as find_learners
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples
from fewshot.learners import OptimizationLearner
from fewshot.tasks import Classification

TASK = {"kind": "classification", "way": 3}
LEARNERS = [
    cls
    for entry in find_learners()
    if issubclass(cls := getattr(fewshot, entry.name), OptimizationLearner)
    and cls.takes in (None, Classification)
]


class Plain(nn.Module):
    out_features = 5
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 5)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.one(x).tanh())

    def second(self, hidden: Tensor) -> Tensor:
        features: Tensor = self.two(hidden)
        return features


class Spectral(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.one)


class OldSpectral(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.spectral_norm(self.one)


class Recomputed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return features


class Branches(Plain):
    """It draws a number first, and counts its calls in an attribute, both of which it reads."""

    calls = 0

    def second(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        hidden = hidden + 0.1 * torch.randn_like(hidden)
        sign = 1.0 if hidden.mean() > 0 else -1.0
        return super().second(hidden * sign) * (1 + 0.01 * self.calls)


class Averages(Plain):
    def second(self, hidden: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * hidden.detach().mean(0))
        return super().second(hidden - self.mean)


class Counts(Plain):
    """Under vmap it would count meta-batches, without an error."""

    def second(self, hidden: Tensor) -> Tensor:
        self.mean += 1
        return super().second(hidden) * (1 + 0.01 * self.mean)


class Replaces(Plain):
    def second(self, hidden: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        return super().second(hidden - self.mean.detach())


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return 3 * x**2 * slope


class OwnFunction(Plain):
    def second(self, hidden: Tensor) -> Tensor:
        cube: Tensor = Cube.apply(hidden)
        return super().second(cube)


class InPlace(Plain):
    def second(self, hidden: Tensor) -> Tensor:
        turned = torch.zeros(hidden.shape, dtype=hidden.dtype)
        turned[:, :3] = hidden[:, 2:]
        turned += 0.1
        return super().second(turned)


class Lazy(Plain):
    """vmap takes it, once it has its shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.LazyLinear(5)


NETWORKS = [Spectral, OldSpectral, Recomputed, Branches, Averages, Counts, Replaces, OwnFunction, InPlace]  # fmt: skip
WEIGHT_NORMS: list[Callable[..., Any]] = [
    nn.utils.parametrizations.weight_norm,
    nn.utils.weight_norm,
]


def episodes(count: int = 4) -> Episode:
    generator = torch.Generator().manual_seed(5)

    def examples(shot: int) -> Examples:
        inputs = torch.rand(count, 3 * shot, 6, dtype=torch.float64, generator=generator)
        return Examples(inputs, torch.arange(3).repeat(shot).expand(count, -1).contiguous())

    return Episode(examples(2), examples(3))


def made(cls: type[OptimizationLearner], network: Callable[[], nn.Module], **given: Any) -> Any:
    torch.manual_seed(0)
    if issubclass(cls, IMAML | Reptile):
        given["inner_steps"] = 2
    return cls(network(), task=TASK, **given).double()


def trained(learner: OptimizationLearner) -> dict[str, Any]:
    """All that a learner is and says after two meta-steps, and the random numbers to come."""
    batch, said = episodes(), dict[str, Any]()
    learner.evaluate(batch)
    learner.train()
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    for step in range(2):
        torch.manual_seed(step)
        optimizer.zero_grad()
        for outcome in learner.run(batch, training=True):
            outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    learner.eval()
    said = learner.evaluate(batch).metrics | dict(learner.state_dict())
    return said | {"random": torch.get_rng_state(), "drawn": torch.randn(3)}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to the user."""
    lines: list[str] = []
    monkeypatch.setattr(fewshot.engine.runner, "rank_zero_info", lines.append)
    return lines


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("cls", LEARNERS)
def test_auto_trains_what_the_loop_trains(
    cls: type[OptimizationLearner], network: type[nn.Module], said: list[str]
) -> None:
    loop = trained(made(cls, network, episode_parallel="loop"))
    assert said == []
    assert_same(trained(made(cls, network)), loop)
    assert len(said) <= 1  # some learners run some of these networks in a way that vmap takes
    if cls is MAML:
        (line,) = said
        assert "\n" not in line
        assert line.startswith(f"{network.__name__} cannot be vmapped over (RuntimeError: ")
        assert line.endswith("): episodes run one by one")


@pytest.mark.parametrize("norm", WEIGHT_NORMS, ids=["new", "old"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_weight_norm_is_vmapped_over(norm: Callable[..., Any], said: list[str]) -> None:
    def network() -> nn.Module:
        plain = Plain()
        norm(plain.one)
        return plain

    assert_same(trained(made(MAML, network)), trained(made(MAML, network, episode_parallel="loop")))
    assert said == []


@pytest.mark.parametrize("cls", LEARNERS)
def test_lazy_layers_take_their_shapes_or_are_refused(cls: type[OptimizationLearner]) -> None:
    if cls in (CAVIA, MetaSGD, Reptile):  # they make something of each weight's shape
        with pytest.raises(
            FewshotError,
            match=rf"^{cls.__name__} must know the shapes of all weights, but backbone\.one"
            r" \(LazyLinear\) has none before it is run; run the network on an example before$",
        ):
            made(cls, Lazy)
        return
    auto = made(cls, Lazy)
    assert_same(trained(auto), trained(made(cls, Lazy, episode_parallel="loop")))


@pytest.mark.parametrize("cls", LEARNERS)
def test_a_networks_own_checkpoints_run_again_with_the_fast_weights(
    cls: type[OptimizationLearner],
) -> None:
    # before, with the weights that the network had after the inner loop: another gradient
    expected = trained(made(cls, Plain, episode_parallel="loop"))
    assert_same(trained(made(cls, Recomputed, episode_parallel="loop")), expected)


def test_fine_tuning_too() -> None:
    def tuned(network: type[nn.Module]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        learner = FineTune(network(), task=TASK, train_classes=3, steps=3, lr=0.5).double().eval()
        return dict(learner.evaluate(episodes()).metrics)

    assert_same(tuned(Recomputed), tuned(Plain))
    assert_same(tuned(Lazy), tuned(Lazy))


@pytest.mark.parametrize("network", NETWORKS)
def test_vmap_that_is_asked_for_ends_in_one_line(network: type[nn.Module]) -> None:
    with pytest.raises(
        FewshotError,
        match=rf"^{network.__name__} cannot be vmapped over \(RuntimeError: .*\); set"
        r" episode_parallel: loop$",
    ):
        trained(made(MAML, network, episode_parallel="vmap"))


@pytest.mark.parametrize("how", ["auto", "loop"])
@pytest.mark.parametrize("network", [Recomputed, Branches, Averages, Counts, OwnFunction])
def test_compiling_ends_in_one_line(network: type[nn.Module], how: Parallel) -> None:
    with pytest.raises(
        FewshotError,
        match=rf"^compile: true does not work for {network.__name__} \(RuntimeError: .*\); set"
        r" compile: false$",
    ):
        trained(made(MAML, network, episode_parallel=how, compile=True))


class Wrong(Plain):
    def second(self, hidden: Tensor) -> Tensor:
        if self.training:
            raise ValueError("of the network's own")
        return super().second(hidden)


@pytest.mark.parametrize(
    "given",
    [{}, {"episode_parallel": "vmap"}, {"episode_parallel": "loop"}, {"compile": True}],
    ids=str,
)
@pytest.mark.parametrize("cls", [MAML, ANIL])
def test_what_is_wrong_with_a_network_is_told_by_its_own_error(
    cls: type[OptimizationLearner], given: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"^of the network's own$"):
        trained(made(cls, Wrong, **given))
    assert not [line for line in said if "one by one" in line]


class Later(Plain):
    """vmap takes its first two forward passes."""

    calls = 0

    def second(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        hidden = hidden + 0.1 * torch.rand_like(hidden)
        return super().second(hidden * (2 if self.calls <= 4 or hidden.mean() < 9 else 1))


def test_what_fails_between_two_chunks_goes_on_by_the_loop(said: list[str]) -> None:
    batch = episodes()
    auto = made(MAML, Later, episodes_per_chunk=1)
    expected = made(MAML, Later, episode_parallel="loop")
    auto.runner.first_time("support")
    expected.runner.first_time("support")
    losses = []
    for learner in (auto, expected):
        learner.train()
        torch.manual_seed(3)
        losses.append(torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]))
    assert len(said) == 1
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)


def test_recomputing_what_changes_a_buffer_is_refused() -> None:
    # the second run would not be the first
    given: dict[str, Any] = {"episode_parallel": "loop", "checkpoint_inner_steps": True}
    with pytest.raises(
        FewshotError,
        match=r"^checkpoint_inner_steps runs each inner step twice, which Averages does not bear"
        r" \(RuntimeError: its forward changes the buffer Averages\.mean\); set"
        r" checkpoint_inner_steps: false$",
    ):
        trained(made(MAML, Averages, **given))
    trained(made(MAML, Plain, **given))


@pytest.mark.parametrize("network", [Branches, Counts])
def test_what_is_looked_at_once_draws_and_changes_nothing(network: type[nn.Module]) -> None:
    # a run that goes on from a checkpoint looks again
    one, other = (made(MAML, network, episode_parallel="loop").train() for _ in range(2))
    other.runner.first_time("support")
    losses = []
    for learner in (one, other):
        torch.manual_seed(3)
        losses.append(torch.cat([o.loss for o in learner.run(episodes(), training=True)]))
    assert torch.equal(*losses)
