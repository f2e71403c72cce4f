"""Every learner that differentiates through its adaptation, on every kind of network, in float64.

The meta-gradient is compared with `torch.autograd.grad` through unrolled steps of a plain copy of
the network, and with finite differences. To add a learner: write its query loss out below and give
it a line in ALGORITHMS.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewshot.backbones import MLP, Conv4, ResNet12
from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.episode_map import Parallel
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.learners import (
    ADML,
    ANIL,
    BOIL,
    CAVIA,
    MAML,
    MAMLPlusPlus,
    MetaSGD,
    OptimizationLearner,
    ProtoMAML,
)
from fewshot.learners.optimization.attacks import FGSM

WAY, QUERIES, EPISODES, STEPS, SIZE = 3, 2, 2, 2, 16
EPSILON, CONTEXT = 0.05, 3
LR = 0.1  # small enough that no unit of a network switches on or off within a finite difference
Weights = dict[str, Tensor]


# ---------------------------------------------------------------- the networks


class Rows(nn.Module):
    """Turns an image (n, 2, 16, 16) into a sequence (n, 16, 8) of rows, for sequence networks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out_features = nn.Linear(2 * SIZE, 8), 8

    def sequence(self, images: Tensor) -> Tensor:
        rows: Tensor = self.embed(images.transpose(1, 2).flatten(2))
        return rows


class Transformer(Rows):
    """A transformer encoder of one layer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, nhead=2, dim_feedforward=12, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(self.sequence(images))
        return encoded.mean(1)


class Recurrent(Rows):
    """A recurrent network, whose last output is the features."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.recurrent = kind(8, 8, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.recurrent(self.sequence(images))[0]
        return outputs[:, -1]


def first_blocks() -> ResNet12:
    """The first two blocks of four, which are alike."""
    network = ResNet12(2, SIZE, widths=(3, 4, 4, 4), drop_block=0.0)
    network.blocks = network.blocks[:2]
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Conv4": lambda: Conv4(2, SIZE, width=4),
    "ResNet12": first_blocks,
    "MLP": lambda: MLP(2 * SIZE * SIZE, (6, 5), norm="layer"),
    "Transformer": Transformer,
}
RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: Recurrent(nn.GRU),
    "LSTM": lambda: Recurrent(nn.LSTM),
}
FILM = {"Conv4": "blocks.2.2", "ResNet12": "blocks.1"}
"""The module behind which CAVIA scales and shifts.

In the other networks its context enters the first layer.
"""


# ---------------------------------------------------------------- the algorithms, written out


class Plain(NamedTuple):
    """The network's copy without the library around it: outputs are features @ weight' + bias."""

    backbone: nn.Module

    def features(self, w: Weights, inputs: Tensor) -> Tensor:
        body = {n.removeprefix("backbone."): v for n, v in w.items() if n.startswith("backbone.")}
        features: Tensor = functional_call(self.backbone, body, (inputs,))
        return features

    def loss(self, w: Weights, examples: Examples) -> Tensor:
        assert isinstance(examples.inputs, Tensor)
        outputs = self.features(w, examples.inputs) @ w["head.weight"].T + w["head.bias"]
        return F.cross_entropy(outputs, examples.targets)


def descend(
    net: Plain,
    w: Weights,
    support: Examples,
    adapts: str = "",
    rates: Callable[[str], Tensor | float] = lambda name: LR,
) -> Weights:
    """`STEPS` steps of gradient descent of the weights whose name begins with `adapts`."""
    for _ in range(STEPS):
        names = [name for name in w if name.startswith(adapts)]
        gradients = torch.autograd.grad(
            net.loss(w, support), [w[name] for name in names], create_graph=True
        )
        w = w | {name: w[name] - rates(name) * g for name, g in zip(names, gradients, strict=True)}
    return w


def maml(net: Plain, p: Weights, support: Examples, query: Examples, adapts: str = "") -> Tensor:
    return net.loss(descend(net, p, support, adapts), query)


def anil(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    return maml(net, p, support, query, "head.")


def anil_together(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    """The body reads both in one pass, whose statistics are those of both."""
    assert isinstance(support.inputs, Tensor)
    assert isinstance(query.inputs, Tensor)
    features = net.features(p, torch.cat([support.inputs, query.inputs]))
    inside, asked = torch.split(features, [len(support.targets), len(query.targets)])
    weight, bias = p["head.weight"], p["head.bias"]
    for _ in range(STEPS):
        loss = F.cross_entropy(inside @ weight.T + bias, support.targets)
        slopes = torch.autograd.grad(loss, (weight, bias), create_graph=True)
        weight, bias = weight - LR * slopes[0], bias - LR * slopes[1]
    return F.cross_entropy(asked @ weight.T + bias, query.targets)


def boil(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    return maml(net, p, support, query, "backbone.")


def meta_sgd(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    start = {name: value for name, value in p.items() if not name.startswith("rates.")}
    return net.loss(
        descend(net, start, support, rates=lambda name: p["rates." + name.replace(".", "/")]), query
    )


def proto_maml(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    assert isinstance(support.inputs, Tensor)
    features = net.features(p, support.inputs)
    means = torch.stack([features[support.targets == label].mean(0) for label in range(WAY)])
    start = p | {"head.weight": 2 * means, "head.bias": -means.square().sum(1)}
    # the steps take body and head as independent: copies cut the way from head to body in their
    # gradients
    return net.loss(
        descend(net, {name: value.clone() for name, value in start.items()}, support), query
    )


def maml_plus_plus(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    def at(step: int, prefix: str) -> Weights:
        return {
            n.removeprefix(prefix).replace("/", "."): v[step]
            for n, v in p.items()
            if n.startswith(prefix)
        }

    w = {name: v for name, v in p.items() if not name.startswith(("rates.", "norms."))}
    for step in range(STEPS):
        rates, norms = at(step, "rates."), at(step, "norms.")
        names = [name for name in w if name in rates]
        gradients = torch.autograd.grad(
            net.loss(w | norms, support), [w[n] for n in names], create_graph=True
        )
        w = w | {n: w[n] - rates[n] * g for n, g in zip(names, gradients, strict=True)}
    return net.loss(w | norms, query)


def adml(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    def attacked(examples: Examples) -> Examples:
        assert isinstance(examples.inputs, Tensor)
        images = examples.inputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net.loss(p, Examples(images, examples.targets)), images)
        return Examples((images + EPSILON * slope.sign()).clamp(0, 1).detach(), examples.targets)

    clean, adversarial = descend(net, p, support), descend(net, p, attacked(support))
    return (net.loss(adversarial, query) + net.loss(clean, attacked(query))) / 2


def cavia(net: Plain, p: Weights, support: Examples, query: Examples) -> Tensor:
    w = {name: value for name, value in p.items() if not name.startswith("context.")}

    def loss(phi: Tensor, examples: Examples) -> Tensor:
        def scaled(layer: nn.Module, inputs: Any, maps: Tensor) -> Tensor:
            gamma, beta = (p["context.linear.weight"] @ phi + p["context.linear.bias"]).chunk(2)
            return gamma[:, None, None] * maps + beta[:, None, None]

        def added(layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
            return outputs + p["context.weight"] @ phi

        place = FILM.get(type(net.backbone).__name__)
        first = next(
            module for module in net.backbone.modules() if isinstance(module, nn.Linear | nn.Conv2d)
        )
        layer = first if place is None else net.backbone.get_submodule(place)
        with layer.register_forward_hook(added if place is None else scaled):
            return net.loss(w, examples)

    phi = torch.zeros(CONTEXT, dtype=torch.float64, requires_grad=True)
    for _ in range(STEPS):
        (gradient,) = torch.autograd.grad(loss(phi, support), phi, create_graph=True)
        phi = phi - LR * gradient
    return loss(phi, query)


class Algorithm(NamedTuple):
    """A learner, its arguments, and its query loss of one episode."""

    learner: type[OptimizationLearner]
    arguments: dict[str, Any]
    loss: Callable[[Plain, Weights, Examples, Examples], Tensor]


ALGORITHMS: dict[str, Algorithm] = {
    "MAML": Algorithm(MAML, {"inner_lr": LR}, maml),
    "ADML": Algorithm(ADML, {"inner_lr": LR, "attack": FGSM(EPSILON)}, adml),
    "ANIL": Algorithm(ANIL, {"inner_lr": LR}, anil),
    "ANIL, together": Algorithm(ANIL, {"inner_lr": LR, "embed_together": True}, anil_together),
    "BOIL": Algorithm(BOIL, {"inner_lr": LR}, boil),
    "CAVIA": Algorithm(CAVIA, {"inner_lr": LR, "num_context": CONTEXT}, cavia),
    "MAMLPlusPlus": Algorithm(MAMLPlusPlus, {"inner_lr": LR}, maml_plus_plus),
    "MetaSGD": Algorithm(MetaSGD, {"initial_rates": (0.02, 0.1)}, meta_sgd),
    "ProtoMAML": Algorithm(ProtoMAML, {"inner_lr": LR}, proto_maml),
}


# ---------------------------------------------------------------- both sides


def make(algorithm: str, network: str, parallel: Parallel) -> OptimizationLearner:
    torch.manual_seed(0)
    cls, arguments, _ = ALGORITHMS[algorithm]
    if cls is CAVIA:
        arguments = arguments | {"film_after": FILM.get(network)}
    task = {"kind": "classification", "way": WAY}
    backbone = (NETWORKS | RECURRENT)[network]()
    learner = cls(
        backbone, task=task, inner_steps=STEPS, episode_parallel=parallel, **arguments
    ).double()
    layers = (nn.BatchNorm2d, nn.LayerNorm)
    for parameter in (
        p for m in learner.backbone.modules() if isinstance(m, layers) for p in m.parameters()
    ):
        parameter.data += 0.3 * torch.randn_like(parameter)  # scales and shifts that matter
    return learner


@pytest.fixture(scope="module")
def batch() -> Episode:
    torch.manual_seed(1)

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, SIZE, SIZE, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(1), examples(QUERIES))


def reference(algorithm: str, learner: OptimizationLearner, batch: Episode) -> Tensor:
    """The meta-gradient by plain autograd, in the order of `learner.parameters()`."""
    net = Plain(copy.deepcopy(learner.backbone).train())
    assert not any(
        getattr(module, "track_running_stats", False) for module in net.backbone.modules()
    )
    start = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        losses = [
            ALGORITHMS[algorithm].loss(net, start, *episode(batch, i)) for i in range(EPISODES)
        ]
    learned = [start[name] for name, p in learner.named_parameters() if p.requires_grad]
    return flat(torch.autograd.grad(torch.stack(losses).mean(), learned))


def gradient(learner: OptimizationLearner, batch: Episode) -> Tensor:
    learner.zero_grad()
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
    return flat([p.grad for p in learner.parameters() if p.grad is not None])


def slope(learner: OptimizationLearner, batch: Episode, direction: Tensor) -> float:
    """The derivative of the meta-loss along `direction` by central differences."""
    learned = [p for p in learner.parameters() if p.requires_grad]
    start = flat([p.detach() for p in learned])

    def loss(step: float) -> float:
        with torch.no_grad():
            nn.utils.vector_to_parameters(start + step * direction, learned)
            return (
                torch.cat([outcome.loss for outcome in learner.run(batch, training=True)])
                .mean()
                .item()
            )

    return (loss(1e-6) - loss(-1e-6)) / 2e-6


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def distance(one: Tensor, two: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((one - two).abs().max() / two.abs().max()).item()


def random_direction(size: int) -> Tensor:
    return F.normalize(
        torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=0
    )


# ---------------------------------------------------------------- the proofs


@pytest.mark.usefixtures("as_traced")  # the next test makes code of it, which takes minutes
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_meta_gradient_is_exact(algorithm: str, network: str, batch: Episode) -> None:
    learner = make(algorithm, network, "loop")
    expected = reference(algorithm, learner, batch)
    ways: tuple[Parallel, ...] = ("loop", "vmap")
    for learner.episode_parallel in ways:
        for learner.compiler in (Compiler(), None):
            found = gradient(learner, batch)
            assert distance(found, expected) < 1e-9, (learner.episode_parallel, learner.compiler)
    learner.episode_parallel, learner.checkpoint_inner_steps = "loop", True
    assert distance(gradient(learner, batch), expected) < 1e-9, "checkpointed"
    learner.episode_parallel, learner.checkpoint_inner_steps = "vmap", False
    direction = random_direction(len(found))
    assert slope(learner, batch, direction) == pytest.approx((found @ direction).item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_meta_gradient_of_compiled_code_is_exact(
    network: str, parallel: Parallel, batch: Episode
) -> None:
    learner = make("MAML", network, parallel)
    expected = reference("MAML", learner, batch)
    learner.compiler = Compiler()
    assert distance(gradient(learner, batch), expected) < 1e-9


@pytest.mark.parametrize("network", RECURRENT)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_meta_gradient_through_recurrent_networks_is_exact(
    algorithm: str, network: str, batch: Episode
) -> None:
    learner = make(algorithm, network, "auto")
    expected = reference(algorithm, learner, batch)
    found = gradient(learner, batch)
    assert distance(found, expected) < 1e-9
    direction = random_direction(len(found))
    assert slope(learner, batch, direction) == pytest.approx((found @ direction).item(), rel=1e-5)


def as_it_is(
    mode: Any, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
) -> Any:
    return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", NETWORKS)
def test_plain_vmap_is_wrong_through_affine_normalisation(
    network: str, batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytorch/functorch#534, the reason for `EpisodeNorm(exact_vmap=True)`; shows too that these
    # tests can fail
    learner = make("MAML", network, "vmap")
    expected = reference("MAML", learner, batch)
    monkeypatch.setattr(EpisodeNorm, "__torch_function__", as_it_is)
    learner.episode_parallel = "loop"
    assert distance(gradient(learner, batch), expected) < 1e-9
    learner.episode_parallel = "vmap"
    assert distance(gradient(learner, batch), expected) > 1e-6


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_is_adapt_and_predict(network: str, parallel: Parallel, batch: Episode) -> None:
    # in evaluation mode, where torch has ways of its own through a transformer
    learner = make("MAML", network, parallel).eval()
    with torch.inference_mode():
        outputs = learner.evaluate(batch).outputs
    for i in range(EPISODES):
        support, query = episode(batch, i)
        predicted = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outputs[i], predicted, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- recurrent networks say that they


@pytest.mark.parametrize("network", RECURRENT)
@pytest.mark.parametrize("algorithm", ["MAML", "ANIL"])
def test_recurrent_networks_take_the_loop_and_say_so_once(
    algorithm: str, network: str, batch: Episode, caplog: pytest.LogCaptureFixture
) -> None:
    learner = make(algorithm, network, "auto")
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        gradient(learner, batch)
        learner.evaluate(batch)
    message = f"{network} weights cannot be vmapped over: episodes run one by one"
    assert [record.getMessage() for record in caplog.records] == [message]


def test_vmap_over_recurrent_weights_is_warned_of(
    batch: Episode, caplog: pytest.LogCaptureFixture
) -> None:
    learner = make("MAML", "GRU", "vmap")
    with pytest.warns(
        UserWarning, match="GRU weights cannot be vmapped over: episodes run one by one"
    ):
        one = gradient(learner, batch)
    assert torch.equal(gradient(learner, batch), one)  # a second warning would be an error
    learner = make("MAML", "GRU", "loop")
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        assert torch.equal(gradient(learner, batch), one)
    assert not caplog.records, "who asked for the loop is told nothing"
