"""The transfer family: classifiers against float64 references, and what all of them promise."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forks import python
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import ImageDataModule
from fewshot.engine.augmentation import Augmentation
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import (
    RFS,
    Baseline,
    BaselinePlusPlus,
    FineTune,
    PrototypicalNetwork,
    TransferLearner,
)
from fewshot.learners.base import BatchNormPolicy
from fewshot.learners.transfer.baseline_plus_plus import (
    CosineClassifier,
    default_scale,
    initial_cosine_head,
)
from fewshot.learners.transfer.heads import (
    cosine_gradient,
    cosine_logits,
    linear_gradient,
    linear_logits,
    orders,
)
from fewshot.learners.transfer.rfs import logistic_regression

WAY, EPISODES, FEATURES, CLASSES = 3, 4, 5, 7
TASK = {"kind": "classification", "way": WAY}
FAMILY: tuple[type[TransferLearner], ...] = (Baseline, BaselinePlusPlus, RFS, FineTune)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def batch() -> Episode:
    """Episodes with 3, 1 and 2 support examples of the classes, in another order each."""
    labels = torch.stack(
        [torch.tensor([0, 0, 0, 1, 2, 2])[torch.randperm(6)] for _ in range(EPISODES)]
    )
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(EPISODES)])
    return Episode(
        Examples(double(EPISODES, 6, 4), labels), Examples(double(EPISODES, 6, 4), query)
    )


def make(cls: type[TransferLearner], **kwargs: Any) -> Any:
    arguments: dict[str, Any] = {"task": TASK, "train_classes": CLASSES, **kwargs}
    return cls(MLP(4, (8, FEATURES)), **arguments).double().eval()


def by_optimizer(head: nn.Module, features: Tensor, labels: Tensor, **sgd: Any) -> nn.Module:
    """`head` after plain torch.optim.SGD on mini-batches of 4 in the library's order."""
    optimizer = torch.optim.SGD(head.parameters(), **sgd)
    for order in orders(len(labels), 10):
        for rows in order.split(4):
            optimizer.zero_grad()
            F.cross_entropy(head(features[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head


SETTINGS = {"lr": 0.3, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.02}
HEAD = {"head_epochs": 10} | {f"head_{name}": value for name, value in SETTINGS.items()}


# ---------------------------------------------------------------- the classifiers


def test_baselines_head_is_that_of_torchs_sgd(batch: Episode) -> None:
    learner = make(Baseline, **HEAD)
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        x, q = (learner.backbone(part.inputs).detach() for part in (support, query))
        head = nn.Linear(FEATURES, WAY).double()
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        by_optimizer(head, x, support.targets, **SETTINGS)
        assert head.weight.abs().max() > 0.1
        torch.testing.assert_close(outcome.outputs[i], head(q), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            outcome.loss[i], F.cross_entropy(head(q), query.targets), rtol=1e-10, atol=1e-12
        )
        assert outcome.metrics["accuracy"][i] == (head(q).argmax(1) == query.targets).float().mean()


def test_baseline_plus_plus_head_is_that_of_torchs_sgd_and_weight_norm(batch: Episode) -> None:
    learner = make(BaselinePlusPlus, **HEAD)
    outcome = learner.evaluate(batch)
    start = initial_cosine_head(WAY, FEATURES, torch.Generator().manual_seed(0))

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.Linear(FEATURES, WAY, bias=False).double()
            layer.weight.data = start["direction"].double()
            self.layer = weight_norm(layer, dim=0)  # g begins as the length of v

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.layer(x / (x.norm(dim=1, keepdim=True) + 1e-5))
            return 2 * scores

    for i in range(EPISODES):
        support, query = episode(batch, i)
        x, q = (learner.backbone(part.inputs).detach() for part in (support, query))
        expected = by_optimizer(Cosine(), x, support.targets, **SETTINGS)(q)
        # the head's start has float32 numbers, and so has its g
        torch.testing.assert_close(outcome.outputs[i], expected, rtol=1e-5, atol=1e-5)
        assert (expected - Cosine()(q)).abs().max() > 0.1


def test_the_heads_gradients_are_those_of_autograd() -> None:
    x, y = double(2, 6, 5), torch.randint(3, (2, 6))
    targets = F.one_hot(y, 3).double()
    cosine = {"direction": double(2, 3, 5), "length": double(2, 3, 1)}
    cases: tuple[tuple[Any, Any, dict[str, Tensor]], ...] = (
        (linear_gradient, linear_logits, {"weight": double(2, 3, 5)}),
        (
            cosine_gradient(2.5),
            lambda weights, features: cosine_logits(weights, features, 2.5),
            cosine,
        ),
    )
    for gradient, logits, weights in cases:
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        loss = sum(
            F.cross_entropy(out, label) for out, label in zip(logits(leaves, x), y, strict=True)
        )
        # a tensor
        expected = torch.autograd.grad(loss, list(leaves.values()))  # type: ignore[arg-type]
        for name, one in zip(leaves, expected, strict=True):
            assert one.abs().max() > 1e-2
            torch.testing.assert_close(
                gradient(weights, x, targets)[name], one, rtol=1e-10, atol=1e-12
            )


def test_cosine_logits_are_those_of_the_equation() -> None:
    head = CosineClassifier(5, 4).double()
    head.length.data.mul_(1.7)
    x = double(3, 5)
    for i in range(3):
        for c in range(4):
            v = head.direction[c]
            cosine = (x[i] @ v) / (v.norm() * (x[i].norm() + 1e-5))
            assert head(x)[i, c].item() == pytest.approx(
                (2 * head.length[c, 0] * cosine).item(), rel=1e-12
            )
    assert [default_scale(n) for n in (5, 200, 201, 4112)] == [2, 2, 10, 10]
    assert CosineClassifier(5, 300).scale == 10
    assert make(BaselinePlusPlus, train_classes=300).classifier.scale == 10
    assert make(BaselinePlusPlus, train_classes=300, scale=3.0).classifier.scale == 3


@pytest.mark.parametrize("strength", [0.3, 1.0, 30.0])
def test_rfs_is_scikit_learns_logistic_regression(strength: float, batch: Episode) -> None:
    learner = make(RFS, inverse_penalty=strength, tolerance=1e-9, max_iterations=20_000)
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        x, q = (
            F.normalize(learner.backbone(part.inputs).detach(), dim=1) for part in (support, query)
        )
        model = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(
            x.numpy(), support.targets.numpy()
        )
        expected = torch.from_numpy(model.predict_proba(q.numpy()))
        torch.testing.assert_close(outcome.outputs[i].softmax(-1), expected, rtol=1e-5, atol=1e-6)


def objective(weights: Tensor, features: Tensor, labels: Tensor, strength: float) -> Tensor:
    logits = features @ weights[:, :-1].T + weights[:, -1]
    return (
        strength * F.cross_entropy(logits, labels, reduction="sum")
        + weights[:, :-1].square().sum() / 2
    )


@pytest.mark.parametrize("normalise", [True, False])
def test_rfs_gradient_vanishes_at_its_solution(normalise: bool) -> None:
    x, labels = (
        3 * double(2, 12, 6),
        torch.stack([torch.arange(4).repeat(3)[torch.randperm(12)] for _ in range(2)]),
    )
    x = F.normalize(x, dim=-1) if normalise else x
    found = logistic_regression(x, labels, 4, 2.0, 1e-8, 10_000)
    for i in range(2):
        weights = found[i].clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective(weights, x[i], labels[i], 2.0), weights)
        assert slope.abs().max() < 2e-8
        assert weights.abs().max() > 0.1


def test_rfs_solves_each_episode_by_itself() -> None:
    easy, hard = double(1, 6, 5), 20 * double(1, 6, 5)
    labels = torch.tensor([[0, 0, 1, 1, 2, 2]])
    alone = logistic_regression(easy, labels, 3, 1.0, 1e-4, 3000)
    together = logistic_regression(
        torch.cat([easy, hard]), labels.expand(2, -1), 3, 1.0, 1e-4, 3000
    )
    # Going on after its end would move the first solution by about the tolerance.
    torch.testing.assert_close(together[0], alone[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rfs_is_done_soon_whatever_the_scale_of_the_features(dtype: torch.dtype) -> None:
    x = (5 * torch.rand(2, 25, 40, dtype=torch.float64)).to(dtype)
    labels = torch.arange(5).repeat(5).expand(2, -1)
    soon, later = (logistic_regression(x, labels, 5, 1.0, 1e-6, n) for n in (300, 2000))
    assert torch.equal(soon, later)  # in float32 rounding hides a slope of 1e-6
    for i in range(2):
        weights = soon[i].double().requires_grad_()
        (slope,) = torch.autograd.grad(objective(weights, x[i].double(), labels[i], 1.0), weights)
        assert slope.abs().max() < (1e-5 if dtype == torch.float64 else 1e-2)


# ---------------------------------------------------------------- fine-tuning


@pytest.mark.parametrize("adapt", ["all", "head"])
def test_fine_tuning_is_gradient_descent_on_the_support(adapt: str, batch: Episode) -> None:
    learner = make(FineTune, adapt=adapt, steps=4, lr=0.2, head_lr=0.5)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    outcome = learner.evaluate(batch)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    for i in range(EPISODES):
        support, query = episode(batch, i)
        body = MLP(4, (8, FEATURES)).double()
        body.load_state_dict(learner.backbone.state_dict())
        head = nn.Linear(FEATURES, WAY).double()
        with torch.no_grad():
            features = body(support.inputs)
            means = torch.stack([features[support.targets == c].mean(0) for c in range(WAY)])
            head.weight.copy_(means / means.norm(dim=1, keepdim=True))
            head.bias.zero_()
        groups = [{"params": head.parameters(), "lr": 0.5}]
        groups += [{"params": body.parameters(), "lr": 0.2}] if adapt == "all" else []
        optimizer = torch.optim.SGD(groups)
        first = head(body(query.inputs)).detach()
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(head(body(support.inputs)), support.targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        expected = head(body(query.inputs))
        torch.testing.assert_close(outcome.outputs[i], expected, rtol=1e-10, atol=1e-12)
        assert (expected - first).abs().max() > 1e-2


def test_fine_tuning_of_prototypes_by_adam_is_written_out(batch: Episode) -> None:
    learner = make(FineTune, descent="adam", head="prototypes", scale=5.0, steps=6, lr=0.03)
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        body = MLP(4, (8, FEATURES)).double()
        body.load_state_dict(learner.backbone.state_dict())

        def logits(inputs: Tensor, body: nn.Module = body, support: Examples = support) -> Tensor:
            features = body(support.inputs)
            means = torch.stack([features[support.targets == c].mean(0) for c in range(WAY)])
            return 5 * F.cosine_similarity(body(inputs)[:, None], means, dim=-1)

        assert isinstance(query.inputs, Tensor)
        assert isinstance(support.inputs, Tensor)
        optimizer = torch.optim.Adam(body.parameters(), lr=0.03)
        first = logits(query.inputs).detach()
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(logits(support.inputs), support.targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        expected = logits(query.inputs)
        torch.testing.assert_close(outcome.outputs[i], expected, rtol=1e-9, atol=1e-10)
        assert (expected - first).abs().max() > 1e-2


def test_a_support_is_read_no_oftener_than_prototypes_need(batch: Episode) -> None:
    support, read = episode(batch, 0).support, list[int]()
    for given in ({"lr": 0.03}, {"rates": [0.0, 0.03]}, {"rates": [0.0]}):
        learner = make(FineTune, descent="adam", head="prototypes", steps=6, **given)
        passes: list[None] = []
        learner.backbone.register_forward_hook(lambda *_, seen=passes: seen.append(None))
        learner.adapt(support)
        read.append(len(passes))
    # at first, in each step, at last; the held out once a rate; none of the steps at a rate of 0
    assert read == [8, 2 + 1 + 8 + 1 + 8, 2]


def test_fine_tuning_of_the_linear_head_by_adam_has_a_rate_of_each(batch: Episode) -> None:
    learner, (support, query) = make(FineTune, descent="adam", steps=3, lr=0.0), episode(batch, 0)
    assert isinstance(support.inputs, Tensor)
    adapted = learner.adapt(support)
    for name, weight in learner.backbone.named_parameters():
        assert torch.equal(adapted[f"backbone.{name}"], weight)
    alone = make(FineTune, adapt="head", steps=3)
    alone.load_state_dict(learner.state_dict())
    assert not torch.equal(learner.predict(adapted, query.inputs), alone.predict(alone.adapt(support), query.inputs))  # fmt: skip


def test_a_support_chooses_the_rate_that_is_best_on_what_it_holds_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make(FineTune, rates=[0.0, 0.1, 1e3], lr=0.5, steps=5)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    support = Examples(double(9, 4) * 0.1 + 3 * F.one_hot(labels, 4).double(), labels)
    seen: list[tuple[int, float]] = []
    tune = FineTune._fine_tuned

    def noted(self: FineTune, examples: Examples, rate: float) -> Any:
        seen.append((len(examples.targets), rate))
        return tune(self, examples, rate)

    monkeypatch.setattr(FineTune, "_fine_tuned", noted)
    learner.adapt(support)
    assert seen[:3] == [(3, 0.0), (3, 0.1), (3, 1e3)]
    assert seen[3] == (9, 0.1)
    seen.clear()
    learner.adapt(map_tensors(lambda t: t[::3], support))  # one example of each class
    assert seen == [(3, 0.5)]


def test_the_support_is_augmented_in_each_step_and_alike_each_time() -> None:
    support = episode(Episode(images(1, 2), images(1, 2)), 0).support
    network = Conv4(2, 16, width=4)
    given: dict[str, Any] = {"task": TASK, "train_classes": CLASSES, "steps": 3, "lr": 0.05}
    plain, changed, again = (
        FineTune(network, augment=augment, **given).double().eval()
        for augment in (None, *[Augmentation(padding=2, probability=0.9)] * 2)
    )
    one, two, three = (learner.adapt(support)["head"] for learner in (plain, changed, again))
    assert not torch.allclose(one, two)
    assert torch.equal(two, three)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adapt": "head", "descent": "adam"}, "descent: adam is for a backbone that adapts"),
        ({"adapt": "head", "rates": [0.1]}, "rates is for a backbone that adapts"),
        ({"rates": []}, "rates is empty"),
    ],
)
def test_what_contradicts_itself_in_fine_tuning_is_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        make(FineTune, **given)


def test_augmentation_of_texts_or_vectors_is_refused(batch: Episode) -> None:
    learner = make(FineTune, augment=Augmentation(padding=1))
    with pytest.raises(FewshotError, match="augment changes images"):
        learner.adapt(episode(batch, 0).support)


def test_fine_tuning_leaves_frozen_parameters_alone(batch: Episode) -> None:
    learner = make(FineTune, steps=2, lr=0.1)
    frozen = next(name for name, _ in learner.backbone.named_parameters())
    learner.backbone.get_parameter(frozen).requires_grad_(False)
    adapted = learner.adapt(episode(batch, 0).support)
    assert f"backbone.{frozen}" not in adapted
    assert len(adapted) == len(list(learner.backbone.parameters()))  # one less, and the head


def images(episodes: int, a_class: int) -> Examples:
    labels = torch.arange(WAY).repeat_interleave(a_class).expand(episodes, -1)
    return Examples(torch.rand(episodes, WAY * a_class, 2, 16, 16, dtype=torch.float64), labels)


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("policy", ["inductive", "transductive"])
def test_the_batchnorm_policy(cls: type[TransferLearner], policy: BatchNormPolicy) -> None:
    learner = cls(
        Conv4(2, 16, width=4), task=TASK, train_classes=CLASSES, batchnorm=policy
    ).double()
    # running averages that are not the trivial ones
    learner.backbone(torch.rand(9, 2, 16, 16, dtype=torch.float64))
    learner.eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    batch = Episode(images(2, 2), images(2, 3))
    outcome = learner.evaluate(batch)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert isinstance(batch.query.inputs, Tensor)
    others = torch.rand_like(batch.query.inputs)
    others[:, 0] = batch.query.inputs[:, 0]
    other = learner.evaluate(batch._replace(query=batch.query._replace(inputs=others)))
    difference = (outcome.outputs[:, 0] - other.outputs[:, 0]).abs().max()
    assert difference == 0 if policy == "inductive" else difference > 1e-7, (
        "whether a query sees another"
    )
    if policy == "inductive":
        for i in range(2):
            support, query = episode(batch, i)
            logits = learner.train().predict(learner.adapt(support), query.inputs)
            torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- what the family promises


@pytest.mark.parametrize("cls", [Baseline, RFS, FineTune])
def test_renaming_the_classes_renames_the_logits(
    cls: type[TransferLearner], batch: Episode
) -> None:
    learner = make(cls, **({"tolerance": 1e-9} if cls is RFS else {}))
    support, query = episode(batch, 0)
    new_name = torch.tensor([2, 0, 1])
    renamed = support._replace(targets=new_name[support.targets])
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, renamed))
    torch.testing.assert_close(two[:, new_name], one, rtol=1e-7, atol=1e-8)
    assert (two - one).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [RFS, FineTune])
def test_the_order_of_the_support_does_not_matter(
    cls: type[TransferLearner], batch: Episode
) -> None:
    learner = make(cls, **({"tolerance": 1e-9} if cls is RFS else {}))
    support, query = episode(batch, 0)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    shuffled = Examples(support.inputs[order], support.targets[order])  # type: ignore[index]
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, shuffled))
    torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("cls", FAMILY)
def test_an_episode_gives_the_same_whatever_was_before_and_beside_it(
    cls: type[TransferLearner], batch: Episode
) -> None:
    learner = make(cls)
    together = learner.evaluate(batch).outputs
    torch.rand(100)
    again = learner.evaluate(batch).outputs
    assert torch.equal(together, again)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        alone = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(alone, together[i], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("inference_mode", [False, True])
@pytest.mark.parametrize("cls", FAMILY)
def test_it_adapts_by_hand_in_any_mode_and_to_any_way(
    cls: type[TransferLearner], inference_mode: bool
) -> None:
    learner = make(cls)
    with torch.inference_mode(inference_mode):
        support = Examples(double(8, 4), torch.arange(4).repeat(2))
        outputs = learner.predict(learner.adapt(support), double(3, 4))
    assert outputs.shape == (3, 4)
    assert outputs.isfinite().all()
    assert outputs.std() > 1e-4


def test_the_orders_are_permutations_that_depend_on_the_size_alone() -> None:
    one = orders(6, 5)
    assert torch.equal(one, orders(6, 5))
    assert one.sort(1).values.tolist() == [list(range(6))] * 5
    assert len({tuple(row) for row in one.tolist()}) > 1


def test_half_precision_features_are_classified_in_float32() -> None:
    learner = RFS(MLP(4, (8, FEATURES)), task=TASK, train_classes=CLASSES).eval()
    batch = Episode(
        *(Examples(torch.randn(2, 6, 4), torch.arange(3).repeat(2).expand(2, -1)) for _ in range(2))
    )
    exact = learner.evaluate(batch).outputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = learner.evaluate(batch).outputs
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, exact, rtol=0.05, atol=0.05)


# ---------------------------------------------------------------- training


def test_training_is_cross_entropy_among_all_classes() -> None:
    for cls in (Baseline, RFS, FineTune):
        learner = make(cls)
        examples = Examples(double(9, 4), torch.randint(CLASSES, (9,)))
        (outcome,) = learner.training_outcomes(examples)
        weight, bias = learner.classifier.weight, learner.classifier.bias
        logits = torch.stack([weight @ f + bias for f in learner.backbone(examples.inputs)])
        losses = torch.stack(
            [x.exp().sum().log() - x[y] for x, y in zip(logits, examples.targets, strict=True)]
        )
        torch.testing.assert_close(outcome.loss, losses, rtol=1e-11, atol=1e-12)
        assert (
            outcome.metrics["accuracy"].tolist()
            == (logits.argmax(1) == examples.targets).float().tolist()
        )
        weights = [p for p in learner.parameters() if p.requires_grad]
        pairs = [
            torch.autograd.grad(loss.mean(), weights, retain_graph=True)
            for loss in (outcome.loss, losses)
        ]
        for one, two in zip(*pairs, strict=True):
            assert two.abs().max() > 1e-5
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


class Images(ImageDataModule):
    """Images of which each class has its own mean brightness in each corner."""

    benchmark = "Corners"
    can_download = False
    in_channels, image_size = 1, 16
    train = 6

    def load(self) -> dict[str, ClassDataset]:
        return {"train": corners(self.train, 0), "val": corners(4, 1), "test": corners(4, 2)}


def corners(classes: int, seed: int) -> ClassDataset:
    rng = np.random.default_rng(seed)
    means = rng.integers(0, 200, (classes, 1, 1, 2, 2)).repeat(8, 3).repeat(8, 4)
    pixels = (means + rng.integers(0, 56, (classes, 10, 1, 16, 16))).astype(np.uint8)
    names = tuple(f"class{i}" for i in range(classes))
    return ClassDataset(
        torch.from_numpy(pixels.reshape(-1, 1, 16, 16)), np.full(classes, 10), names
    )


def trainer(**kwargs: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, use_distributed_sampler=False, **kwargs,
    )  # fmt: skip


def data(**kwargs: Any) -> Images:
    return Images(
        **{
            "way": 3,
            "queries": 2,
            "batch_size": 12,
            "val_episodes": 2,
            "test_episodes": 4,
            **kwargs,
        }
    )


Trained = tuple[TransferLearner, dict[str, float], Path]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[TransferLearner]], Trained]:
    """Train a learner, each once."""
    trained: dict[type[TransferLearner], Trained] = {}

    def once(cls: type[TransferLearner]) -> Trained:
        if cls not in trained:
            trained[cls] = train_anew(cls, tmp_path_factory.mktemp("transfer") / "last.ckpt")
        return trained[cls]

    return once


@pytest.fixture(scope="module", params=FAMILY)
def trained(
    request: pytest.FixtureRequest, train: Callable[[type[TransferLearner]], Trained]
) -> Trained:
    """A learner, what it logged last in training, its checkpoint."""
    return train(request.param)


def train_anew(cls: type[TransferLearner], path: Path) -> Trained:
    torch.manual_seed(0)
    images = data()
    learner = cls(
        Conv4(1, 16, width=4), task=images.task, train_classes=images.train_classes, gradient_clip=5.0,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01),
    )  # fmt: skip
    run = trainer(max_epochs=12)
    run.fit(learner, images)
    logged = {name: float(value) for name, value in run.logged_metrics.items()}
    run.save_checkpoint(path)
    return learner, logged, path


def test_training_learns_the_training_classes(trained: Trained) -> None:
    learner, logged, _ = trained
    assert {"train/loss", "train/accuracy", "val/accuracy", "val/accuracy_ci95"} <= set(logged)
    if isinstance(learner, BaselinePlusPlus):
        assert logged["train/loss"] < 1.79, "ln 6 is chance"
    else:
        assert logged["train/accuracy"] > 0.6


def test_a_test_repeats_itself_bit_by_bit(trained: Trained) -> None:
    learner, _, path = trained
    (first,) = trainer().test(learner, data(), verbose=False)
    (second,) = trainer().test(
        type(learner).load_from_checkpoint(path), data(eval_batch_size=8), verbose=False
    )
    assert first == second


def test_a_checkpoint_needs_no_arguments_in_another_process(
    train: Callable[[type[TransferLearner]], Trained], tmp_path: Path
) -> None:
    found = {cls.__name__: train(cls) for cls in FAMILY}
    learners = {name: learner for name, (learner, _, _) in found.items()}
    paths = {name: str(path) for name, (_, _, path) in found.items()}
    images = data()
    batch = images.on_after_batch_transfer(next(iter(images.test_dataloader())), 0).stacked
    torch.save(tuple(tuple(part) for part in batch), tmp_path / "batch.pt")
    script = f"""
import torch, fewshot
from fewshot import Episode, Examples
torch.set_num_threads(1)
batch = Episode(*(Examples(*part) for part in torch.load({str(tmp_path / "batch.pt")!r})))
for name, path in {paths!r}.items():
    learner = getattr(fewshot, name).load_from_checkpoint(path).eval()
    torch.save(learner.evaluate(batch).outputs, {str(tmp_path)!r} + f"/{{name}}.pt")
"""
    subprocess.run([python(), "-c", script], check=True, timeout=120)
    for name, learner in learners.items():
        assert torch.equal(
            torch.load(tmp_path / f"{name}.pt"), learner.eval().evaluate(batch).outputs
        ), name


def test_other_training_classes_do_not_matter_to_a_test(trained: Trained) -> None:
    learner, _, path = trained
    (expected,) = trainer().test(learner, data(), verbose=False)
    other = type(learner)(Conv4(1, 16, width=4), task=data().task, train_classes=9)
    (found,) = trainer().test(other, data(), ckpt_path=path, verbose=False, weights_only=True)
    assert found == expected
    assert other.train_classes == 6


def test_training_goes_on_with_the_same_classes_only(trained: Trained) -> None:
    learner, _, path = trained
    images = data()
    images.train = 7
    other = type(learner)(Conv4(1, 16, width=4), task=images.task, train_classes=7)
    with pytest.raises(
        FewshotError, match=r"the parameter classifier.* is \(6, 4\) in the checkpoint, \(7, 4\)"
    ):
        trainer(max_epochs=13).fit(other, images, ckpt_path=path, weights_only=True)


def test_a_gradient_that_is_not_finite_stops_training() -> None:
    images = data()
    learner = Baseline(Conv4(1, 16, width=4), task=images.task, train_classes=6)
    with torch.no_grad():
        learner.classifier.weight[0, 0] = torch.nan  # type: ignore[operator]  # of a linear layer
    with pytest.raises(
        FewshotError,
        match="the gradient of step 0 is not finite; lower the optimizer's lr, set grad",
    ):
        trainer(max_epochs=1, num_sanity_val_steps=0).fit(learner, images)


# ---------------------------------------------------------------- weights of another learner


@pytest.mark.parametrize("cls", FAMILY)
def test_the_backbone_may_come_from_any_learners_checkpoint(
    cls: type[TransferLearner], tmp_path: Path
) -> None:
    source = PrototypicalNetwork(Conv4(1, 16, width=4), task=TASK)
    source.backbone(torch.rand(4, 1, 16, 16))
    run = trainer()
    run.strategy.connect(source)
    run.save_checkpoint(tmp_path / "proto.ckpt")
    learner = cls(
        Conv4(1, 16, width=4), task=TASK, train_classes=5, weights=str(tmp_path / "proto.ckpt")
    )
    pairs = zip(
        learner.backbone.state_dict().values(), source.backbone.state_dict().values(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    assert learner.weights_file == str(tmp_path / "proto.ckpt")
    assert "weights" not in learner.hparams, "the checkpoint holds what the file held"
    with pytest.raises(
        FewshotError,
        match=r"proto.ckpt do not fit the backbone: blocks.0.0.weight is \(4, 1, 3, 3\)",
    ):
        cls(Conv4(1, 16, width=8), task=TASK, train_classes=5, weights=str(tmp_path / "proto.ckpt"))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(
        FewshotError,
        match=r"foreign.ckpt was not written by fewshot; give a .ckpt file of `fewshot",
    ):
        cls(
            Conv4(1, 16, width=4),
            task=TASK,
            train_classes=5,
            weights=str(tmp_path / "foreign.ckpt"),
        )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (
            Baseline,
            {"task": {"kind": "regression"}},
            "Baseline is made for classification, but the benchmark's task is regression; choose",
        ),
        (
            Baseline,
            {"train_classes": 1},
            "train_classes is 1; set train_classes >= 2",
        ),
        (Baseline, {"head_lr": -1.0}, "head_lr is -1.0; set head_lr >= 0"),
        (Baseline, {"head_epochs": 0}, "head_epochs is 0; set head_epochs >= 1"),
        (BaselinePlusPlus, {"head_batch": 0}, "head_batch is 0; set head_batch >= 1"),
        (Baseline, {"head_momentum": 1.5}, r"head_momentum is 1.5; set head_momentum in \[0, 1\]"),
        (
            Baseline,
            {"head_dampening": -0.5},
            r"head_dampening is -0.5; set head_dampening in \[0, 1\]",
        ),
        (
            Baseline,
            {"head_weight_decay": -0.5},
            "head_weight_decay is -0.5; set head_weight_decay >= 0",
        ),
        (BaselinePlusPlus, {"scale": 0.0}, "scale is 0.0; set scale > 0"),
        (RFS, {"inverse_penalty": 0.0}, "inverse_penalty is 0.0; set inverse_penalty > 0"),
        (RFS, {"tolerance": -1.0}, "tolerance is -1.0; set tolerance > 0"),
        (RFS, {"max_iterations": 0}, "max_iterations is 0; set max_iterations >= 1"),
        (FineTune, {"steps": -1}, "steps is -1; set steps >= 0"),
        (FineTune, {"lr": -0.1}, "lr is -0.1; set lr >= 0"),
        (FineTune, {"head_lr": -0.1}, "head_lr is -0.1; set head_lr >= 0"),
        (FineTune, {"adapt": "body"}, "adapt is 'body'; give all or head"),
        (
            Baseline,
            {"weights": "none.ckpt"},
            "there is no checkpoint none.ckpt; give the path of a .ckpt file",
        ),
    ],
)
def test_bad_arguments_are_errors(
    cls: type[TransferLearner], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        make(cls, **arguments)
