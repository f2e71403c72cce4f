"""iMAML in float64: closed forms, dense linear algebra, differences of the re-solved problem."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import nodes
from torch import Tensor, nn
from torch.func import functional_call

from fewshot.backbones import Conv4
from fewshot.datamodules import GlyphsDataModule
from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.conjugate_gradients import conjugate_gradients
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import IMAML

WAY, SHOT, QUERIES, EPISODES, SIZE = 3, 2, 2, 2, 16
WAYS: tuple[Parallel, ...] = ("loop", "vmap")


class Smooth(nn.Module):
    """A small network of smooth functions, with batch normalisation, on the first pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
        self.out_features = 3

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x[:, 0, 0, :4])
        return features


class Features(nn.Module):
    """No network at all: a linear model is left."""

    out_features = 3

    def forward(self, x: Tensor) -> Tensor:
        return x


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "smooth": Smooth,
    "conv4": lambda: Conv4(1, SIZE, width=1),  # ReLU, max-pooling and batch normalisation
}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    """Random images (1, 16, 16) with labels."""

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 1, SIZE, SIZE, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


def imaml(network: nn.Module, **kwargs: Any) -> IMAML:
    torch.manual_seed(1)
    learner = IMAML(network, **{"task": {"kind": "classification", "way": WAY}, **kwargs}).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name or ".body.2." in name:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return learner


def meta(learner: IMAML, batch: Episode) -> tuple[Tensor, Tensor]:
    """The mean training loss and the meta-gradient."""
    learner.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
        total += outcome.loss.detach().sum() / EPISODES
    return total, torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def distance(one: Tensor, two: Tensor) -> float:
    return ((one - two).abs().max() / two.abs().max()).item()


# ---------------------------------------------------------------- the reference: nothing of the lib


class Plain:
    """The learner's network as a function of one vector of all its parameters."""

    def __init__(self, learner: IMAML) -> None:
        self.network = learner.network
        self.shapes = {name: p.shape for name, p in self.network.named_parameters()}
        self.theta = torch.cat([p.detach().flatten() for p in self.network.parameters()])

    def outputs(self, vector: Tensor, inputs: Any) -> Tensor:
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()])
        weights = {
            n: part.view(shape) for (n, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
        outputs: Tensor = functional_call(self.network, weights, (inputs,))
        return outputs

    def loss(self, vector: Tensor, examples: Examples) -> Tensor:
        return F.cross_entropy(self.outputs(vector, examples.inputs), examples.targets)

    def descend(
        self, support: Examples, steps: int, rate: float, proximal: float
    ) -> Iterator[Tensor]:
        w = self.theta
        yield w
        for _ in range(steps):
            leaf = w.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(leaf, support), leaf)
            w = w - rate * (slope + proximal * (w - self.theta))
            yield w

    def implicit(
        self,
        w: Tensor,
        support: Examples,
        query: Examples,
        proximal: float,
        damping: float,
        hessian_damping: float = 0.0,
    ) -> Tensor:
        """The right side solved with the dense Hessian."""
        leaf = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(self.loss(leaf, query), leaf)
        hessian = torch.autograd.functional.hessian(lambda v: self.loss(v, support), w)  # type: ignore[no-untyped-call]
        eye = torch.eye(len(w), dtype=w.dtype)
        solution: Tensor = torch.linalg.solve(
            (1 + damping) * eye + hessian / (proximal + hessian_damping), g
        )
        return solution


# ---------------------------------------------------------------- the meta-gradient


@pytest.mark.parametrize("damping", [0.0, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_meta_gradient_is_that_of_the_dense_system(
    name: str, damping: float, batch: Episode
) -> None:
    rate, proximal, steps = 0.1, 2.0, 3
    learner = imaml(
        NETWORKS[name](), inner_lr=rate, proximal=proximal, inner_steps=steps, cg_damping=damping
    )
    plain = Plain(learner)
    learner.cg_steps = len(plain.theta)
    losses, gradients = [], []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        *_, w = plain.descend(support, steps, rate, proximal)
        losses.append(plain.loss(w, query))
        gradients.append(plain.implicit(w, support, query, proximal, damping))
    expected = torch.stack(gradients).mean(0)
    for learner.episode_parallel in WAYS:
        loss, gradient = meta(learner, batch)
        assert distance(loss, torch.stack(losses).mean()) < 1e-12
        assert distance(gradient, expected) < 1e-9
    learner.cg_steps = 1
    assert distance(meta(learner, batch)[1], expected) > 1e-4  # so that the test can tell


@pytest.mark.parametrize("hessian_damping", [0.0, 10.0])
@pytest.mark.parametrize("pull_once", [False, True])
def test_the_authors_system_and_the_authors_path(
    pull_once: bool, hessian_damping: float, batch: Episode
) -> None:
    rate, proximal, steps = 0.1, 2.0, 3
    learner = imaml(
        Smooth(), inner_lr=rate, proximal=proximal, inner_steps=steps, cg_damping=1.0,
        hessian_damping=hessian_damping, pull_once=pull_once,
    )  # fmt: skip
    plain = Plain(learner)
    learner.cg_steps = len(plain.theta)
    losses, gradients = [], []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        *_, w = plain.descend(support, steps, rate, 0.0 if pull_once else proximal)
        if pull_once:  # a step of gradient descent on the pull
            leaf = w.clone().requires_grad_()
            away = proximal / 2 * ((leaf - plain.theta) ** 2).sum()
            w = w - rate * torch.autograd.grad(away, leaf)[0]
        losses.append(plain.loss(w, query))
        gradients.append(plain.implicit(w, support, query, proximal, 1.0, hessian_damping))
    for learner.episode_parallel in WAYS:
        loss, gradient = meta(learner, batch)
        assert distance(loss, torch.stack(losses).mean()) < 1e-12
        assert distance(gradient, torch.stack(gradients).mean(0)) < 1e-9
    # the authors' evaluation is not pulled at all
    support, query = episode(batch, 0)
    *_, w = plain.descend(support, steps, rate, 0.0 if pull_once else proximal)
    assert distance(learner.evaluate(batch).outputs[0], plain.outputs(w, query.inputs)) < 1e-10


@pytest.mark.parametrize("adapt", ["head", ["backbone.body.2", "head.weight"]], ids=str)
def test_what_does_not_adapt_has_the_gradient_of_the_damped_system(
    adapt: Any, batch: Episode
) -> None:
    learner = imaml(Smooth(), adapt=adapt, inner_lr=0.3, inner_steps=3, proximal=1.0, cg_steps=33,
                    hessian_damping=4.0, episode_parallel="loop")  # fmt: skip
    learner.zero_grad()
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum())
    shapes = {n: p.shape for n, p in learner.network.named_parameters()}
    every = {n: p.detach() for n, p in learner.network.named_parameters()}
    outer = [n for n in shapes if n not in learner.adapted_names]
    inner = list(learner.adapted_names)

    def vector(weights: Weights, names: list[str]) -> Tensor:
        return torch.cat([weights[n].flatten() for n in names])

    def loss(theta: Tensor, omega: Tensor, examples: Examples) -> Tensor:
        weights: Weights = {}
        for flat, names in ((theta, inner), (omega, outer)):
            parts = torch.split(flat, [shapes[n].numel() for n in names])
            weights |= {n: p.view(shapes[n]) for n, p in zip(names, parts, strict=True)}
        outputs = functional_call(learner.network, weights, (examples.inputs,))
        return F.cross_entropy(outputs, examples.targets)

    omega, expected = vector(every, outer), []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        inside = Examples(learner.embedded(support.inputs), support.targets)
        *_, weights = learner.inner_loop(inside, 3)
        theta = vector({n: w.detach() for n, w in weights.items()}, inner)
        g, direct = torch.autograd.functional.jacobian(
            lambda t, o: loss(t, o, query),  # noqa: B023  # used at once
            (theta, omega),
        )  # type: ignore[no-untyped-call]
        ((h, mixed), _) = torch.autograd.functional.hessian(
            lambda t, o: loss(t, o, support),  # noqa: B023
            (theta, omega),
        )  # type: ignore[no-untyped-call]
        eye = torch.eye(len(theta), dtype=theta.dtype)
        expected.append(direct - mixed.T @ torch.linalg.solve(h + (1.0 + 4.0) * eye, g))
    slopes = {n: p.grad for n, p in learner.network.named_parameters() if p.grad is not None}
    found = torch.cat([slopes[n].flatten() for n in outer])
    assert distance(found, torch.stack(expected).sum(0)) < 1e-9


@pytest.mark.parametrize("parallel", WAYS)
def test_on_a_linear_model_it_is_the_derivative_of_the_closed_form(parallel: Parallel) -> None:
    x, y = (
        torch.randn(2, EPISODES, 6, 3, dtype=torch.float64),
        torch.randn(2, EPISODES, 6, 1, dtype=torch.float64),
    )
    batch = Episode(Examples(x[0], y[0]), Examples(x[1], y[1]))
    proximal = 0.7
    learner = imaml(Features(), task={"kind": "regression"}, inner_lr=0.25, inner_steps=120, proximal=proximal,
                    cg_steps=4, episode_parallel=parallel)  # fmt: skip
    loss, gradient = meta(learner, batch)
    theta = torch.cat([p.detach().flatten() for p in learner.parameters()]).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    rows = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    for i in range(EPISODES):
        a = rows[0, i]
        hessian = 2 / len(a) * a.T @ a
        solution = torch.linalg.solve(
            hessian + proximal * torch.eye(4, dtype=x.dtype),
            2 / len(a) * a.T @ y[0, i, :, 0] + proximal * theta,
        )
        total = total + F.mse_loss(rows[1, i] @ solution, y[1, i, :, 0]) / EPISODES
    (expected,) = torch.autograd.grad(total, theta)
    assert distance(loss, total.detach()) < 1e-9
    assert distance(gradient, expected) < 1e-9


@pytest.mark.parametrize("parallel", WAYS)
@pytest.mark.parametrize(
    "adapt", ["all", "head", "body", ["backbone.body.2", "head.weight"]], ids=str
)
def test_at_convergence_it_is_the_finite_difference_of_the_solved_problem(
    adapt: Any, parallel: Parallel, batch: Episode
) -> None:
    learner = imaml(Smooth(), adapt=adapt, inner_lr=0.5, inner_steps=40, proximal=1.0, cg_steps=33,
                    episode_parallel=parallel)  # fmt: skip
    _, gradient = meta(learner, batch)
    start = [p.detach().clone() for p in learner.parameters()]
    assert len(gradient) == sum(p.numel() for p in start)
    learner.cg_steps = 1  # the loss does not depend on it

    def loss(direction: list[Tensor], step: float) -> Tensor:
        with torch.no_grad():
            for parameter, value, change in zip(
                learner.parameters(), start, direction, strict=True
            ):
                parameter.copy_(value + step * change)
        return torch.cat(
            [outcome.loss.detach() for outcome in learner.run(batch, training=True)]
        ).mean()

    # each tensor's own direction, so that what adapts and what does not are both seen
    for name in ("backbone.body.1.weight", "head.weight", ""):
        direction = [
            torch.randn_like(p) * (n.startswith(name)) for n, p in learner.named_parameters()
        ]
        length = torch.cat([d.flatten() for d in direction]).norm()
        direction = [d / length for d in direction]
        slope = (loss(direction, 1e-5) - loss(direction, -1e-5)) / 2e-5
        expected = gradient @ torch.cat([d.flatten() for d in direction])
        assert slope.item() == pytest.approx(expected.item(), rel=1e-5), name


@pytest.mark.parametrize(
    ("adapt", "hessian_damping", "pull_once"),
    [("all", 0.0, False), ("head", 0.0, False), ("body", 0.0, False), ("all", 10.0, True)],
)
def test_compiled_it_is_the_same(
    adapt: Any, hessian_damping: float, pull_once: bool, batch: Episode
) -> None:
    learner = imaml(
        Smooth(), inner_steps=1, cg_steps=2, episode_parallel="loop", adapt=adapt,
        hessian_damping=hessian_damping, pull_once=pull_once,
    )  # fmt: skip
    _, expected = meta(learner, batch)
    learner.compiler = Compiler("aot_eager")
    assert distance(meta(learner, batch)[1], expected) < 1e-9


# ---------------------------------------------------------------- conjugate gradients


def symmetric(n: int) -> Tensor:
    root = torch.randn(n, n, dtype=torch.float64)
    return root @ root.T + torch.eye(n, dtype=torch.float64)


def test_after_k_iterations_it_is_the_best_of_the_first_k_directions() -> None:
    a, b = symmetric(8), torch.randn(8, dtype=torch.float64)
    for k in range(1, 9):
        krylov, _ = torch.linalg.qr(
            torch.stack([torch.linalg.matrix_power(a, i) @ b for i in range(k)], dim=1)
        )
        best = krylov @ torch.linalg.solve(krylov.T @ a @ krylov, krylov.T @ b)
        assert distance(conjugate_gradients(lambda x: a @ x, b, k), best) < 1e-9


def test_nothing_left_to_solve_changes_nothing() -> None:
    a = symmetric(4)
    zero, b = torch.zeros(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    together = torch.func.vmap(lambda right: conjugate_gradients(lambda x: a @ x, right, 60))(
        torch.stack([zero, b])
    )
    assert torch.equal(together[0], zero)
    assert distance(together[1], torch.linalg.solve(a, b)) < 1e-9
    # the residual is zero, exactly, after one
    assert torch.equal(conjugate_gradients(lambda x: x, b, 3), b)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("parallel", WAYS)
@pytest.mark.parametrize("adapt", ["all", "body", "head"])
def test_the_graph_does_not_grow_with_the_inner_steps(
    adapt: Any, parallel: Parallel, batch: Episode
) -> None:
    counts = []
    for steps in (1, 12):
        learner = imaml(Smooth(), adapt=adapt, inner_steps=steps, episode_parallel=parallel)
        counts.append([len(nodes(outcome.loss)) for outcome in learner.run(batch, training=True)])
    assert counts[0] == counts[1]


def test_the_weights_of_past_steps_are_given_up(
    batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = imaml(Smooth(), inner_steps=12, episode_parallel="loop")
    original, alive = learner.inner_loop, []

    def watched(support: Examples, steps: int) -> Iterator[Weights]:
        earlier: list[weakref.ref[Tensor]] = []
        for weights in original(support, steps):
            assert not any(w.requires_grad for w in weights.values())
            alive.append(sum(reference() is not None for reference in earlier))
            earlier.append(weakref.ref(weights["head.weight"]))
            yield weights

    list(learner.run(batch, training=True))  # what is checked once in the first run
    monkeypatch.setattr(learner, "inner_loop", watched)
    list(learner.run(batch, training=True))
    assert len(alive) == 13 * EPISODES
    assert max(alive) <= 2  # the start, which the pull needs, and the last but one


# ---------------------------------------------------------------- evaluation and wrong input


@pytest.mark.parametrize("parallel", WAYS)
def test_evaluation_takes_the_same_proximal_steps(parallel: Parallel, batch: Episode) -> None:
    learner = imaml(
        Smooth(),
        inner_lr=0.4,
        proximal=1.5,
        inner_steps=2,
        eval_inner_steps=4,
        eval_curve="all",
        episode_parallel=parallel,
    )
    plain = Plain(learner)
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        for step, w in enumerate(plain.descend(support, 4, 0.4, 1.5)):
            assert distance(outcome.metrics[f"loss_step{step}"][i], plain.loss(w, query)) < 1e-10
        assert distance(outcome.outputs[i], plain.outputs(w, query.inputs)) < 1e-10
        torch.testing.assert_close(
            learner.predict(learner.adapt(support), query.inputs), outcome.outputs[i]
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proximal": 0.0}, r"proximal is 0.0; set proximal > 0"),
        ({"cg_steps": 0}, r"cg_steps is 0; set cg_steps >= 1"),
        ({"cg_damping": -1.0}, r"cg_damping is -1.0; set cg_damping >= 0"),
        ({"hessian_damping": -1.0}, r"hessian_damping is -1.0; set hessian_damping >= 0"),
    ],
)
def test_bad_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        imaml(Smooth(), **arguments)


# ---------------------------------------------------------------- the settings


@pytest.mark.parametrize(("settings", "rests"), [({}, True), ({"inner_lr": 0.1}, False)])
def test_the_inner_loop_comes_to_rest_at_the_default_rate(
    settings: dict[str, Any], rests: bool
) -> None:
    # The meta-gradient is that of a solution: where the inner loop has not come near one, it points
    # anywhere.
    benchmark = GlyphsDataModule(way=5, shot=1)
    benchmark.setup("fit")
    images, labels, _ = episode(next(iter(benchmark.train_dataloader())).stacked, 0).support
    assert isinstance(images, Tensor)
    learner = IMAML(Conv4(1, 28), task={"kind": "classification", "way": 5}, **settings).double()
    start = {name: weight.detach() for name, weight in learner.network.named_parameters()}

    def slope(weights: Weights) -> float:
        def objective(weights: Weights) -> Tensor:
            away = torch.stack(
                [(weights[name] - start[name]).square().sum() for name in start]
            ).sum()
            return (
                F.cross_entropy(
                    functional_call(learner.network, weights, (images.double() / 255,)), labels
                )
                + away
            )

        slopes = torch.func.grad(objective)(weights)
        return torch.stack([slope.square().sum() for slope in slopes.values()]).sum().sqrt().item()

    *_, end = learner.inner_loop(Examples(images.double() / 255, labels), 16)
    assert (slope(end) < 0.05 * slope(start)) == rests
