"""Optimization-based learners against autograd in float64: meta-gradients, adaptation, refusals."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import clipped
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, FOMAML, MAML, MetaSGD, OptimizationLearner, ProtoMAML
from fewshot.learners.optimization.attacks import FGSM

WAY, SHOT, QUERIES, EPISODES, LR, STEPS = 3, 2, 2, 2, 0.3, 2
Weights = dict[str, Tensor]


def network(w: Weights, x: Tensor) -> Tensor:
    """Conv4 and the linear head, written out."""
    for i in range(4):
        x = F.conv2d(x, w[f"backbone.blocks.{i}.0.weight"], padding=1)
        mean, variance = (
            x.mean([0, 2, 3], keepdim=True),
            x.var([0, 2, 3], correction=0, keepdim=True),
        )
        scale, shift = (
            w[f"backbone.blocks.{i}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        x = F.max_pool2d(((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0), 2)
    return x.flatten(1) @ w["head.weight"].T + w["head.bias"]


def features(w: Weights, x: Tensor) -> Tensor:
    """The network without its head."""
    size = w["backbone.blocks.3.0.weight"].shape[0]
    eye = torch.eye(size, dtype=x.dtype)
    return network({**w, "head.weight": eye, "head.bias": torch.zeros(size, dtype=x.dtype)}, x)


def prototype_head(w: Weights, support: Examples) -> Weights:
    assert isinstance(support.inputs, Tensor)
    f = features(w, support.inputs)
    means = torch.stack([f[support.targets == label].mean(0) for label in range(WAY)])
    return {"head.weight": 2 * means, "head.bias": -(means**2).sum(1)}


def reference(
    learner: OptimizationLearner,
    batch: Episode,
    adapts: Callable[[str], bool] = lambda name: True,
    clip: float | None = None,
    prototypes: bool = False,
) -> Tensor:
    """Meta-gradient by `torch.autograd.grad` of unrolled steps, in `learner.parameters()` order."""
    start = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(support.inputs, Tensor)
        assert isinstance(query.inputs, Tensor)
        w = {name: value for name, value in start.items() if not name.startswith("rates.")}
        if prototypes:
            w |= prototype_head(w, support)
            # the inner loop takes body and head as independent: copies cut the way from head to
            # body in its gradient
            w = {name: value.clone() for name, value in w.items()}
        for _ in range(STEPS):
            names = [name for name in w if adapts(name)]
            loss = F.cross_entropy(network(w, support.inputs), support.targets)
            gradients = torch.autograd.grad(loss, [w[name] for name in names], create_graph=True)
            if clip is not None:
                norm = torch.cat([g.flatten() for g in gradients]).norm()
                gradients = tuple(g * (clip / norm) if norm > clip else g for g in gradients)
            rates = [
                start.get("rates." + name.replace(".", "/"), torch.tensor(LR, dtype=torch.float64))
                for name in names
            ]
            w |= {n: w[n] - r * g for n, r, g in zip(names, rates, gradients, strict=True)}
        total = total + F.cross_entropy(network(w, query.inputs), query.targets)
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(total / EPISODES, list(start.values()))]
    )


def gradient(learner: OptimizationLearner, batch: Episode) -> Tensor:
    learner.zero_grad()
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def distance(one: Tensor, two: Tensor) -> float:
    return ((one - two).abs().max() / two.abs().max()).item()


def make(cls: type[OptimizationLearner], **kwargs: Any) -> OptimizationLearner:
    torch.manual_seed(0)
    rate: dict[str, Any] = {} if cls is MetaSGD else {"inner_lr": LR}
    task = {"kind": "classification", "way": WAY}
    learner = cls(Conv4(2, 16, width=4), task=task, inner_steps=STEPS, **rate, **kwargs).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return learner


@pytest.fixture(scope="module")
def batch() -> Episode:
    torch.manual_seed(1)

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


CASES: dict[str, tuple[type[OptimizationLearner], dict[str, Any], dict[str, Any]]] = {
    "ANIL": (ANIL, {}, {"adapts": lambda name: name.startswith("head")}),
    "BOIL": (BOIL, {}, {"adapts": lambda name: name.startswith("backbone")}),
    "names": (
        MAML,
        {"adapt": ["backbone.blocks.3", "head.bias"]},
        {"adapts": lambda name: name.startswith("backbone.blocks.3") or name == "head.bias"},
    ),
    "clip": (MAML, {"inner_gradient_clip": 0.5}, {"clip": 0.5}),
    "MetaSGD": (MetaSGD, {"initial_rates": (0.1, 0.5)}, {}),
    "ProtoMAML": (ProtoMAML, {}, {"prototypes": True}),
}


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("case", CASES)
def test_the_meta_gradient_is_that_of_plain_autograd(
    case: str, parallel: Parallel, batch: Episode
) -> None:
    cls, arguments, how = CASES[case]
    learner = make(cls, episode_parallel=parallel, **arguments)
    expected = reference(learner, batch, **how)
    assert distance(gradient(learner, batch), expected) < 1e-9
    if how and case != "ProtoMAML":
        # plain MAML differs, so that the test can tell
        assert distance(reference(learner, batch), expected) > 1e-3


@pytest.mark.parametrize("cls", [ANIL, BOIL, MetaSGD, ProtoMAML])
def test_the_meta_gradient_is_that_of_finite_differences(
    cls: type[OptimizationLearner], batch: Episode
) -> None:
    learner = make(cls)
    whole = gradient(learner, batch)
    start = [p.detach().clone() for p in learner.parameters()]
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in start]
    length = torch.cat([d.flatten() for d in direction]).norm()

    def loss(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, value, change in zip(
                learner.parameters(), start, direction, strict=True
            ):
                parameter.copy_(value + step * change / length)
            return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    expected = whole @ torch.cat([d.flatten() for d in direction]) / length
    assert slope.item() == pytest.approx(expected.item(), rel=1e-5)


def test_fomaml_is_first_order_maml(batch: Episode) -> None:
    one, other = make(FOMAML), make(MAML, first_order=True)
    assert torch.equal(gradient(one, batch), gradient(other, batch))
    assert distance(gradient(make(MAML), batch), gradient(one, batch)) > 1e-3


@pytest.mark.parametrize("policy", ["transductive", "inductive"])
@pytest.mark.parametrize("cls", [ANIL, BOIL, MetaSGD, ProtoMAML])
def test_evaluation_is_adapt_and_predict_of_each_episode(
    cls: type[OptimizationLearner], policy: str, batch: Episode
) -> None:
    learner = make(cls, batchnorm=policy, eval_inner_steps=3, eval_curve="all")
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        outputs = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], outputs, rtol=1e-10, atol=1e-10)
    assert {f"accuracy_step{k}" for k in range(4)} < set(outcome.metrics)


def test_anil_computes_the_body_once_for_the_support_and_once_for_the_query(batch: Episode) -> None:
    calls: list[int] = []
    learner = make(ANIL, episode_parallel="loop", eval_inner_steps=5, eval_curve="all")
    learner.backbone.register_forward_hook(lambda *_: calls.append(1))
    gradient(learner, batch)
    assert len(calls) == 2 * EPISODES
    calls.clear()
    learner.evaluate(batch)
    assert len(calls) == 2 * EPISODES
    calls.clear()
    learner.batchnorm = "inductive"
    learner.evaluate(batch)
    # once more for the support's statistics, whatever the number of steps
    assert len(calls) == 3 * EPISODES


def test_proto_maml_begins_as_a_prototypical_network_of_any_way(batch: Episode) -> None:
    learner = make(ProtoMAML, batchnorm="transductive", episode_parallel="loop", eval_curve="ends")
    support, query = episode(batch, 0)
    assert isinstance(support.inputs, Tensor)
    assert isinstance(query.inputs, Tensor)
    two = [examples.targets < 2 for examples in (support, query)]
    s = Examples(support.inputs[two[0]], support.targets[two[0]])
    q = Examples(query.inputs[two[1]], query.targets[two[1]])
    meta_batch = Episode(*(Examples(e.inputs[None], e.targets[None]) for e in (s, q)))  # type: ignore[index]
    outcome = learner.evaluate(meta_batch)
    w = dict(learner.named_parameters())
    f, g = features(w, s.inputs), features(w, q.inputs)  # type: ignore[arg-type]
    means = torch.stack([f[s.targets == label].mean(0) for label in range(2)])
    distances = (g[:, None] - means).square().sum(-1)
    assert outcome.outputs.shape[-1] == 2
    assert outcome.metrics["loss_step0"].item() == pytest.approx(
        F.cross_entropy(-distances, q.targets).item(), rel=1e-9
    )


def test_meta_sgd_learns_a_rate_for_every_weight() -> None:
    learner = make(MetaSGD, initial_rates=(0.005, 0.1))
    assert isinstance(learner, MetaSGD)
    rates = torch.cat([rate.flatten() for rate in learner.rates.values()])
    assert len(rates) == sum(w.numel() for w in learner.initial_weights().values())
    assert 0.005 <= rates.min() < 0.01 < 0.09 < rates.max() <= 0.1


def test_clipping_scales_the_common_norm_and_has_a_derivative_at_zero() -> None:
    g = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    assert torch.cat(list(clipped(g, 1.0).values())).tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert clipped(g, 5.1)["b"].item() == 4.0
    zero = torch.zeros(2, requires_grad=True)
    torch.autograd.backward(clipped({"a": zero}, 1.0)["a"].sum())
    assert zero.grad is not None
    assert zero.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_loss_that_is_scaled_trains_as_one_that_is_not(clip: float | None) -> None:
    """As under 16-mixed.

    Where the scaled gradient overflows, the step is left out and the scale halved.
    """

    def trained(scale: float | None) -> tuple[Tensor, float | None]:
        data = SinusoidDataModule(
            shot=5, queries=5, meta_batch_size=3, train_episodes=12, val_episodes=2
        )
        torch.manual_seed(0)
        learner = MAML(
            MLP(1, (5,)), task=data.task, gradient_clip=clip, optimizer=partial(SGD, lr=0.1)
        )
        # Lightning's float16 needs a GPU, a scale does not
        precision = MixedPrecision("bf16-mixed", "cpu")
        scaler = precision.scaler = (
            None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        )
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, plugins=[precision],
        )  # fmt: skip
        trainer.fit(learner, data)
        weights = torch.cat([p.detach().flatten() for p in learner.parameters()])
        return weights, None if scaler is None else scaler.get_scale()

    plain, _ = trained(None)
    scaled, scale = trained(2.0**10)
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)
    assert scale == 2.0**10
    overflown, scale = trained(3e38)
    assert overflown.isfinite().all()
    assert scale is not None
    assert scale < 3e38


@pytest.mark.parametrize("cls", [ANIL, BOIL, FOMAML, MAML, MetaSGD, ProtoMAML])
def test_a_checkpoint_rebuilds_its_learner(
    cls: type[OptimizationLearner], tmp_path: Path, batch: Episode
) -> None:
    learner = make(cls, eval_inner_steps=2, batchnorm="inductive").float()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = cls.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.adapted_names == learner.adapted_names
    small = map_tensors(
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, batch
    )
    assert torch.equal(
        loaded.eval().evaluate(small).outputs, learner.eval().evaluate(small).outputs
    )


def test_what_cannot_adapt_is_refused() -> None:
    with pytest.raises(
        FewshotError,
        match=r"adapt names 'backbone.block', but the parameters are backbone.blocks.0",
    ):
        make(MAML, adapt=["backbone.block"])
    frozen = Conv4(2, 16, width=4)
    frozen.requires_grad_(False)
    with pytest.raises(
        FewshotError,
        match=r"parameter backbone.blocks.0.0.weight is frozen but should adapt; unfreeze",
    ):
        MAML(frozen, task={"kind": "classification", "way": 2})
    ANIL(frozen, task={"kind": "classification", "way": 2})
    with pytest.raises(
        FewshotError,
        match=r"ProtoMAML is made for classification, but the benchmark's task is regression",
    ):
        ProtoMAML(MLP(1), task={"kind": "regression"})
    with pytest.raises(
        FewshotError, match=r"initial_rates are 0.2 and 0.1; give the smaller first"
    ):
        make(MetaSGD, initial_rates=(0.2, 0.1))
    with pytest.raises(
        FewshotError, match=r"inner_gradient_clip is -1; set inner_gradient_clip > 0"
    ):
        make(MAML, inner_gradient_clip=-1)


# ---------------------------------------------------------------- a head of the user's own


class Body(nn.Module):
    """A backbone that ends in the first layers of what could as well be the head."""

    def __init__(self, backbone: nn.Module, layers: nn.Module) -> None:
        super().__init__()
        self.backbone, self.layers, self.out_features = backbone, layers, 5

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(self.backbone(inputs))
        return features


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("adapt", ["all", "head"])
def test_a_head_of_several_layers_is_part_of_the_network(
    adapt: Any, parallel: Parallel, batch: Episode
) -> None:
    torch.manual_seed(0)
    body, layers = (
        Conv4(2, 16, width=4),
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()),
    )
    last = nn.Linear(5, WAY)
    arguments: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS, "episode_parallel": parallel}
    arguments["task"] = {"kind": "classification", "way": WAY}
    one = MAML(
        copy.deepcopy(body),
        head=copy.deepcopy(nn.Sequential(layers, last)),
        adapt=adapt,
        **arguments,
    ).double()
    names = ["all"] if adapt == "all" else ["backbone.layers", "head"]
    other = MAML(Body(body, layers), adapt="all" if adapt == "all" else names, **arguments)
    other.head.load_state_dict(last.state_dict())
    other.double()
    assert distance(gradient(one, batch), gradient(other, batch)) < 1e-12
    assert torch.equal(one.evaluate(batch).outputs, other.evaluate(batch).outputs)
    assert all(
        module.running_mean is None
        for module in one.head.modules()
        if isinstance(module, nn.BatchNorm1d)
    )


def test_a_head_of_other_outputs_is_refused(batch: Episode) -> None:
    learner = MAML(
        Conv4(2, 16, width=4), head=nn.Linear(4, 7), task={"kind": "classification", "way": WAY}
    ).double()
    with pytest.raises(
        FewshotError,
        match=(
            r"^the head Linear gives 7 outputs, but the task needs 3; give its last layer that"
            r" many$"
        ),
    ):
        gradient(learner, batch)


def test_an_unused_layer_of_a_head_is_refused(batch: Episode) -> None:
    head = nn.Linear(4, WAY)
    head.add_module("leftover", nn.Linear(2, 2))
    learner = ANIL(
        Conv4(2, 16, width=4), head=head, task={"kind": "classification", "way": WAY}
    ).double()
    with pytest.raises(
        FewshotError, match=r"^head.leftover.weight, head.leftover.bias get no gradient"
    ):
        gradient(learner, batch)


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_anil_together_is_evaluated_on_the_statistics_of_both(parallel: Parallel) -> None:
    torch.manual_seed(0)
    learner = ANIL(
        Conv4(1, 16, width=4), task={"kind": "classification", "way": 2}, inner_lr=0.3, embed_together=True,
        eval_inner_steps=3, eval_curve="all", episode_parallel=parallel,
    ).double()  # fmt: skip
    labels = torch.tensor([0, 1]).expand(2, -1)
    x, y = (torch.rand(2, 2, 1, 16, 16, dtype=torch.float64) for _ in range(2))
    outcome = learner.evaluate(Episode(Examples(x, labels), Examples(y, labels)))
    body = learner.backbone.train()  # whose batch normalisation keeps no averages
    for i in range(2):
        features = body(torch.cat([x[i], y[i]])).detach()
        weight, bias = (p.detach().clone().requires_grad_() for p in learner.head.parameters())
        for step in range(4):
            logits = features[2:] @ weight.T + bias
            loss = torch.nn.functional.cross_entropy(logits, labels[i])
            torch.testing.assert_close(outcome.metrics[f"loss_step{step}"][i], loss)
            inside = torch.nn.functional.cross_entropy(features[:2] @ weight.T + bias, labels[i])
            slopes = torch.autograd.grad(inside, (weight, bias))
            weight, bias = (w - 0.3 * s for w, s in zip((weight, bias), slopes, strict=True))
        torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batchnorm": "inductive"}, "embed_together lets queries see one another"),
        ({"attack": FGSM(0.1)}, "embed_together has the support see attacked queries"),
    ],
)
def test_anil_together_refuses_what_contradicts_it(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        ANIL(MLP(1), task={"kind": "classification", "way": 2}, embed_together=True, **arguments)
