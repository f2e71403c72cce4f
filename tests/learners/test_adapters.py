"""Adapters against written-out layers; who adapts, who stays; loop, vmap, derivatives, checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor, nn

from fewshot import TSA, LoRA, load
from fewshot.backbones import MLP, Backbone, Conv4, TextTransformer
from fewshot.backbones.adapters import Adapters, AdapterWeights
from fewshot.deployment.export import detached, to_program
from fewshot.engine.normalization import forget_running_statistics
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, FOMAML, MAML, FineTune, MetaSGD, ProtoMAML, Reptile

WAY = 3
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def seeded(double: None) -> None:
    torch.manual_seed(0)


def episodes(*shape: int) -> Episode:
    labels = [torch.arange(WAY).repeat_interleave(n).expand(2, -1) for n in (2, 3)]
    return Episode(*(Examples(torch.rand(2, y.shape[1], *shape), y) for y in labels))


def stirred(adapters: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return dict(adapters.named_parameters())


def beside(kind: Adapters, layer: nn.Module) -> AdapterWeights:
    return kind.of(nn.Sequential(layer), 5)


def test_lora_adds_a_product_of_rank_r() -> None:
    layer, x = nn.Linear(7, 5), torch.randn(2, 4, 7)
    adapters = beside(LoRA(rank=2, scale=3.0), layer)
    with adapters.attached(network := nn.Sequential(layer)):
        assert torch.equal(network(x), layer.forward(x))  # B is zero
        w = stirred(adapters)
        down, up = w["beside.0.down"], w["beside.0.up"]
        assert (down.shape, up.shape) == ((2, 7), (5, 2))
        expected = F.linear(x, layer.weight + 3 * up @ down, layer.bias)
        torch.testing.assert_close(network(x), expected)
    assert torch.equal(network(x), layer.forward(x))


@pytest.mark.parametrize("kdim", [None, 3])
def test_lora_changes_each_projection_of_an_attention(kdim: int | None) -> None:
    layer = nn.MultiheadAttention(6, 2, batch_first=True, kdim=kdim)
    x, key = torch.randn(2, 4, 6), torch.randn(2, 5, kdim or 6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer

        def forward(self) -> Tensor:
            out: Tensor = self.attention(x, key, key[..., :6] if kdim is None else key_value)[0]
            return out

    key_value = torch.randn(2, 5, 6)
    network = Net()
    plain = network()
    adapters = LoRA(rank=2).of(network, 6)
    with adapters.attached(network):
        torch.testing.assert_close(network(), plain)
        w = stirred(adapters)
        assert not torch.allclose(network(), plain)
        found = network()
    for i, part in enumerate(("q", "k", "v", "out")):
        product = w[f"beside.0.products.{i}.up"] @ w[f"beside.0.products.{i}.down"]
        with torch.no_grad():
            if part == "out":
                layer.out_proj.weight += product
            elif kdim is None:
                layer.in_proj_weight[6 * i : 6 * i + 6] += product
            else:
                getattr(layer, f"{part}_proj_weight").add_(product)
    torch.testing.assert_close(network(), found)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": 0},
        {"padding": 2, "dilation": 2, "groups": 2},
        {"padding": "same"},
        {"padding": (2, 0), "stride": (1, 2)},
    ],
)
def test_tsa_adds_a_pointwise_convolution_at_the_middle_of_the_window(options: Any) -> None:
    layer, x = nn.Conv2d(4, 6, 3, **options), torch.randn(2, 4, 9, 9)
    adapters = beside(TSA(), layer)
    w, full = adapters.get_parameter("beside.0.weight"), adapters.map
    groups = options.get("groups", 1)
    assert full is not None
    first = torch.cat([torch.eye(6 // groups, 4 // groups)] * groups)
    assert torch.equal(w[..., 0, 0], 1e-4 * first)
    assert torch.equal(full, torch.eye(5))
    stirred(adapters)
    with adapters.attached(network := nn.Sequential(layer)):
        found = network(x)
    with torch.no_grad():
        layer.weight[:, :, 1:2, 1:2] += w
    torch.testing.assert_close(found, layer(x))
    features = torch.randn(3, 5)
    torch.testing.assert_close(adapters.mapped(features), features @ full.T)
    maps = features[..., None, None].expand(-1, -1, 2, 2)
    torch.testing.assert_close(adapters.mapped(maps)[..., 1, 0], features @ full.T)


def conv() -> Conv4:
    return Conv4(1, 16, width=4)


LEARNERS: list[Any] = [
    (MAML, {}),
    (FOMAML, {}),
    (ProtoMAML, {}),
    (MetaSGD, {}),
    (Reptile, {}),
    (ANIL, {}),
    (BOIL, {}),
]


@pytest.mark.parametrize(("kind", "more"), LEARNERS)
def test_the_backbone_stays_in_both_loops_and_the_adapters_learn(kind: Any, more: Any) -> None:
    learner = kind(conv(), adapters=TSA(), inner_steps=2, task=TASK, **more)
    adapting = set(learner.initial_weights())
    assert not any(name.startswith("backbone.") for name in adapting)
    assert any(name.startswith("adapters.") for name in adapting) == (kind is not ANIL)
    trained = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert not any(name.startswith("backbone.") for name in trained)
    outcomes = list(learner.run(episodes(1, 16, 16), training=True))
    torch.autograd.backward(torch.cat([o.loss for o in outcomes]).sum())
    for name, parameter in learner.adapters.named_parameters():
        assert parameter.grad is not None, name
    assert all(p.grad is None for p in learner.backbone.parameters())


def mlp() -> MLP:
    return MLP(4, [6, 5])


@pytest.mark.parametrize(
    ("backbone", "adapters", "shape"), [(mlp, LoRA(rank=2), (4,)), (conv, TSA(), (1, 16, 16))]
)
def test_the_meta_gradient_is_that_of_plain_autograd(
    backbone: Any, adapters: Any, shape: Any
) -> None:
    """By weights that are merged into the network's own, without a hook."""
    learner = MAML(backbone(), adapters=adapters, inner_lr=0.3, inner_steps=2, task=TASK)
    assert learner.adapters is not None
    stirred(learner.adapters)
    batch = episodes(*shape)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    merged, weights = backbone(), learner.initial_weights()
    forget_running_statistics(merged)
    merged.load_state_dict(learner.backbone.state_dict())

    def outputs(w: dict[str, Tensor], x: Tensor) -> Tensor:
        own = dict(merged.named_parameters())
        assert learner.adapters is not None
        for i, place in enumerate(learner.adapters.places):
            name = f"{place}.weight"
            if isinstance(merged, MLP):
                up, down = (w[f"adapters.beside.{i}.{part}"] for part in ("up", "down"))
                own[name] = own[name] + up @ down
            else:
                own[name] = own[name] + F.pad(w[f"adapters.beside.{i}.weight"], (1, 1, 1, 1))
        features = torch.func.functional_call(merged, own, (x,))
        if "adapters.map" in w:
            features = features @ w["adapters.map"].T
        return F.linear(features, w["head.weight"], w["head.bias"])

    losses = []
    for i in range(2):
        w = weights
        (x, y), (q, t) = ((p.inputs[i], p.targets[i]) for p in batch)  # type: ignore[index]
        for _ in range(2):
            slopes = torch.autograd.grad(
                F.cross_entropy(outputs(w, x), y), list(w.values()), create_graph=True
            )
            w = {n: v - 0.3 * s for (n, v), s in zip(w.items(), slopes, strict=True)}
        losses.append(F.cross_entropy(outputs(w, q), t))
    wanted = torch.autograd.grad(sum(losses), parameters, materialize_grads=True)  # type: ignore[arg-type]
    for how in ("loop", "vmap"):
        learner.episode_parallel = how
        loss = torch.cat([o.loss for o in learner.run(batch, training=True)])
        torch.testing.assert_close(loss, torch.stack(losses), rtol=1e-8, atol=1e-10)
        found = torch.autograd.grad(loss.sum(), parameters, materialize_grads=True)
        for slope, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(slope, other, rtol=1e-6, atol=1e-9)


def test_a_transformer_of_words_takes_lora_and_answers_alike_with_and_without_gradients() -> None:
    network = TextTransformer(50, embedding_dim=8, heads=2, layers=1, dropout=0.0)
    learner = MAML(network, adapters=LoRA(rank=2), inner_lr=0.5, inner_steps=2, task=TASK)
    assert learner.adapters is not None
    stirred(learner.adapters)
    assert any("self_attn" in place for place in learner.adapters.places)
    shown = {"tokens": torch.randint(1, 50, (2, 6, 5)), "lengths": torch.full((2, 6), 4)}
    labels = torch.arange(WAY).repeat_interleave(2)
    adapted = learner.adapt(Examples({n: t[0] for n, t in shown.items()}, labels))
    query = {n: t[1] for n, t in shown.items()}
    with torch.no_grad():
        plain = learner.predict(adapted, query)
    torch.testing.assert_close(plain, learner.predict(adapted, query))
    start = learner.predict(
        learner.adapt_for(Examples({n: t[0] for n, t in shown.items()}, labels), 0), query
    )
    assert not torch.allclose(start, plain)


@pytest.mark.parametrize("options", [{}, {"head": "prototypes", "descent": "adadelta"}])
def test_fine_tune_adapts_the_adapters_alone(options: Any) -> None:
    learner = FineTune(
        conv(), adapters=TSA(), steps=3, lr=0.1, head_lr=1.0, train_classes=4, task=TASK, **options
    ).eval()
    before = {n: t.clone() for n, t in learner.state_dict().items()}
    assert not any("beside" in name for name in before)
    batch = episodes(1, 16, 16)
    adapted = learner.adapt(Examples(batch.support.inputs[0], batch.support.targets[0]))  # type: ignore[index]
    names = {name for name in adapted if name != "head"}
    assert names == {
        "backbone.adapters.map",
        *(f"backbone.adapters.beside.{i}.weight" for i in range(4)),
    }
    for name in names:
        assert learner.beside is not None
        start = learner.beside.get_parameter(name.removeprefix("backbone.adapters."))
        assert not torch.equal(adapted[name], start)
    after = learner.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    x = batch.query.inputs[0]  # type: ignore[index]
    plain = learner.backbone(x)
    learner.predict(adapted, x)
    assert torch.equal(learner.backbone(x), plain)  # nothing is left hanging


def test_the_recipe_of_tsa_is_its_authors() -> None:
    """Adadelta on cosine prototypes of the support, the map at its own rate: written out."""
    net = conv().eval()
    learner = FineTune(
        net,
        adapters=TSA(),
        steps=2,
        lr=0.1,
        head_lr=1.0,
        head="prototypes",
        descent="adadelta",
        train_classes=4,
        task=TASK,
    ).eval()
    batch = episodes(1, 16, 16)
    x, y = batch.support.inputs[0], batch.support.targets[0]  # type: ignore[index]
    adapters = TSA().of(net, net.out_features)
    others = [p for n, p in adapters.named_parameters() if n != "map"]
    groups = [{"params": others, "lr": 0.1}, {"params": [adapters.map], "lr": 1.0}]
    optimizer = torch.optim.Adadelta(groups)

    def logits(q: Tensor) -> Tensor:
        with adapters.attached(net):
            s, f = adapters.mapped(net(x)), adapters.mapped(net(q))
        c = torch.stack([F.normalize(s[y == i], dim=-1).mean(0) for i in range(WAY)])
        means = torch.stack([s[y == i].mean(0) for i in range(WAY)])
        assert c.shape == means.shape
        return 10 * F.normalize(f, dim=-1) @ F.normalize(means, dim=-1).T

    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits(x), y))
        optimizer.step()
    q = batch.query.inputs[0]  # type: ignore[index]
    found = learner.predict(learner.adapt(Examples(x, y)), q)
    torch.testing.assert_close(found, logits(q), rtol=1e-8, atol=1e-10)


def test_a_checkpoint_carries_them(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    learner = MAML(conv(), adapters=TSA(), task=TASK).float()
    assert learner.adapters is not None
    stirred(learner.adapters)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = load(tmp_path / "a.ckpt").module
    batch = episodes(1, 16, 16)
    x, y = batch.support.inputs[0], batch.support.targets[0]  # type: ignore[index]
    wanted = learner.predict(learner.adapt(Examples(x, y)), x)
    torch.testing.assert_close(other.predict(other.adapt(Examples(x, y)), x), wanted)
    assert other.init_args["adapters"]["class_path"] == "fewshot.TSA"


class Nothing(Backbone):
    """A network that has no layer to adapt."""

    out_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Any) -> Tensor:
        scaled: Tensor = inputs * self.scale
        return scaled


class Frozen(MLP):
    frozen = True


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MAML(mlp(), adapters=TSA(), task=TASK), "adapts 3x3 convolutions, of which MLP"),
        (lambda: MAML(Nothing(), adapters=LoRA(), task=TASK), "linear and attention layers, of wh"),
        (
            lambda: FineTune(mlp(), adapters=TSA(), train_classes=3, task=TASK),
            "of which MLP has none; choose LoRA",
        ),
        (
            lambda: FineTune(mlp(), adapters=LoRA(), adapt="head", train_classes=3, task=TASK),
            "adapters is for a backbone that adapts; set adapt: all",
        ),
        (lambda: MAML(Frozen(4), adapters=LoRA(), task=TASK), "set frozen: false"),
        (lambda: MAML(mlp(), adapters=LoRA(rank=0), task=TASK), "rank"),
        (lambda: MAML(mlp(), adapters="lora", task=TASK), "adapters"),
        (
            lambda: MAML(mlp(), adapters=LoRA(), adapt=["backbone.layers.0"], task=TASK),
            "is frozen but should adapt",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(make: Any, words: str) -> None:
    with pytest.raises(FewshotError, match=words) as told:
        make()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("backbone", "adapters", "shape"), [(mlp, LoRA(rank=2), (4,)), (conv, TSA(), (1, 16, 16))]
)
@pytest.mark.parametrize("kind", [MAML, FineTune])
def test_an_exported_classifier_has_them(
    backbone: Any, adapters: Any, shape: Any, kind: Any
) -> None:
    more = {"steps": 2, "train_classes": 3} if kind is FineTune else {"batchnorm": "inductive"}
    learner = kind(backbone(), adapters=adapters, task=TASK, **more).eval()
    batch = episodes(*shape)
    x, y = batch.support.inputs[0], batch.support.targets[0]  # type: ignore[index]
    if kind is MAML:
        stirred(learner.adapters)
    adapted = map_tensors(Tensor.detach, learner.adapt(Examples(x, y)))
    with torch.no_grad():
        wanted = learner.predict(adapted, x)
    clone = detached(learner)

    class Classifier(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = clone.predict(adapted, inputs)
            return outputs

    program = to_program(Classifier(), x)
    torch.testing.assert_close(program.module()(x), wanted)
