"""Heads on features, against easyfsl and scikit-learn on the same features in float64."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from every_learner import TinyImages
from torch import Tensor, nn

from fewshot.backbones import MLP
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import (
    BDCSPN,
    FEAT,
    PTMAP,
    RFS,
    TIM,
    LaplacianShot,
    MetaLearner,
    NearestNeighbour,
    PrototypicalNetwork,
    RidgeRegression,
    SimpleShot,
    TipAdapter,
    TransductiveFineTuning,
)
from fewshot.learners.transfer.feature_head import FeatureHead, TransductiveHead
from fewshot.learners.transfer.pt_map import balanced_assignments

WAY, SHOT, QUERIES, D = 4, 3, 6, 20
HEADS: list[type[FeatureHead]] = [
    *(BDCSPN, LaplacianShot, NearestNeighbour, PTMAP, RidgeRegression, TIM, TipAdapter),
    TransductiveFineTuning,
]


class Given(nn.Module):
    """Features that are the inputs."""

    out_features = D

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def made(kind: type[MetaLearner], **given: Any) -> Any:
    if issubclass(kind, FeatureHead) or kind is RFS:
        given["train_classes"] = 5
    if issubclass(kind, FeatureHead) and kind is not PTMAP:
        given.setdefault("transform", "none")
    make: Any = kind
    return make(Given(), task={"kind": "classification", "way": WAY}, **given).double().eval()


def features(seed: int = 0, shot: int = SHOT) -> tuple[Tensor, Tensor, Tensor]:
    """Support features, their labels in no order, and query features; none is negative."""
    rng = np.random.default_rng(seed)
    centres = rng.random((WAY, 1, D))
    support, query = (
        np.maximum(centres + 0.3 * rng.standard_normal((WAY, size, D)), 0).reshape(-1, D)
        for size in (shot, QUERIES)
    )
    order = rng.permutation(WAY * shot)
    labels = np.arange(WAY).repeat(shot)[order]
    found = (torch.from_numpy(part) for part in (support[order], labels, query))
    return tuple(found)  # type: ignore[return-value]


def logits(learner: Any, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    outputs: Tensor = learner.predict(learner.adapt(Examples(support, labels)), query)
    return outputs


def easy(name: str, **given: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    methods = pytest.importorskip("easyfsl.methods")

    def answer(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        model = getattr(methods, name)(**given)
        with torch.no_grad():
            model.process_support_set(support, labels)
            found: Tensor = model(query)
        return found.detach()

    return answer


def same(one: Tensor, other: Tensor, reach: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, rtol=reach, atol=reach)


# ------------------------------------------------------------------ against easyfsl


@pytest.mark.parametrize("shot", [1, SHOT])
def test_bd_cspn_is_easyfsls(shot: int) -> None:
    learner = made(BDCSPN, scale=1.0, temperature=1.0, shift_queries=False)
    same(logits(learner, *features(0, shot)), easy("BDCSPN")(*features(0, shot)))


@pytest.mark.parametrize("shot", [1, SHOT])
@pytest.mark.parametrize("seed", [0, 1])
def test_laplacian_shot_is_easyfsls(shot: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # its affinities are float32
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: zeros(*a, **{"dtype": torch.float64, **k}))
    learner = made(LaplacianShot, neighbours=2, rectify_scale=1.0, shift_queries=False)
    expected = easy("LaplacianShot")(*features(seed, shot))
    same(logits(learner, *features(seed, shot)).softmax(-1), expected)


@pytest.mark.parametrize("shot", [1, SHOT])
def test_tim_is_easyfsls(shot: int) -> None:
    learner = made(TIM, steps=50)
    expected = easy("TIM", use_softmax=True)(*features(0, shot))
    # its marginal entropy has no 1e-12 under the logarithm
    same(logits(learner, *features(0, shot)).softmax(-1), expected, 1e-8)
    untuned = logits(made(TIM, steps=0), *features(0, shot)).softmax(-1)
    assert not torch.allclose(untuned, expected, atol=1e-4)


@pytest.mark.parametrize("shot", [1, SHOT])
def test_pt_map_is_easyfsls(shot: int) -> None:
    learner = made(PTMAP, normalise=False, center_episode=False, steps=10)
    expected = easy("PTMAP")(*features(0, shot))
    same(logits(learner, *features(0, shot)).exp(), expected, 1e-6)


@pytest.mark.parametrize("lr", [5e-5, 1e-2])
def test_transductive_fine_tuning_is_easyfsls(lr: float) -> None:
    learner = made(TransductiveFineTuning, lr=lr, temperature=1.0)
    expected = easy("TransductiveFinetuning", fine_tuning_lr=lr)(*features())
    same(logits(learner, *features()), expected, 1e-7)


def test_class_means_are_easyfsls() -> None:
    cosine = made(PrototypicalNetwork, distance="cosine")
    same(logits(cosine, *features()), easy("SimpleShot")(*features()))
    euclidean = logits(made(PrototypicalNetwork), *features())
    same(-((-euclidean).sqrt()), easy("PrototypicalNetworks")(*features()))


def test_cl2n_is_easyfsls() -> None:
    learner, center = made(SimpleShot), torch.rand(D).double()
    learner.center.copy_(center)
    ours = logits(learner, *features())
    given = {"feature_centering": center, "feature_normalization": 2}
    theirs = easy("PrototypicalNetworks", **given)(*features())
    same(-((-ours).sqrt()), theirs)


def test_feat_is_easyfsls_with_the_same_weights() -> None:
    modules = pytest.importorskip("easyfsl.modules")
    attention = modules.MultiHeadAttention(1, D, D, D).double().eval()
    learner = made(FEAT, temperature=1.0)
    ours = learner.transformer
    for name, theirs in {
        "query": "w_qs",
        "key": "w_ks",
        "value": "w_vs",
        "out": "fc",
        "norm": "layer_norm",
    }.items():
        getattr(ours, name).load_state_dict(getattr(attention, theirs).state_dict())
    expected = easy("FEAT", attention_module=attention)(*features())
    same(-((-logits(learner, *features())).sqrt()), expected)


# ------------------------------------------------------------------ against scikit-learn


def test_ridge_regression_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    support, labels, query = features()
    for penalty in (0.1, 10.0):
        model = linear.Ridge(alpha=penalty).fit(support.numpy(), F.one_hot(labels).double().numpy())
        learner = made(RidgeRegression, penalty=penalty, scale=1.0)
        same(
            logits(learner, support, labels, query), torch.from_numpy(model.predict(query.numpy()))
        )


def test_the_nearest_neighbour_is_scikit_learns() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    support, labels, query = features()
    model = neighbors.KNeighborsClassifier(1).fit(support.numpy(), labels.numpy())
    found = logits(made(NearestNeighbour, scale=1.0), support, labels, query)
    assert found.argmax(-1).tolist() == model.predict(query.numpy()).tolist()
    by_class = [-torch.cdist(query, support[labels == c]).square().amin(-1) for c in range(WAY)]
    same(found, torch.stack(by_class, -1))


# ------------------------------------------------------------------ written out


def test_tip_adapter_is_its_formula() -> None:
    support, labels, query = features()
    f, keys = F.normalize(query, dim=-1), F.normalize(support, dim=-1)
    cache = torch.zeros(len(query), WAY).double()
    for i, row in enumerate(f):
        for key, label in zip(keys, labels, strict=True):
            cache[i, label] += 1.2 * torch.exp(-3.0 * (1 - row @ key))
    learner = made(TipAdapter, alpha=1.2, beta=3.0, prior="none")
    same(logits(learner, support, labels, query), cache)
    means = torch.stack([support[labels == c].mean(0) for c in range(WAY)])
    prior = 100 * f @ F.normalize(means, dim=-1).T
    same(logits(made(TipAdapter, alpha=1.2, beta=3.0), support, labels, query), cache + prior)


class Noisy(TinyImages):
    """Images that are not told apart at sight."""

    def load(self) -> dict[str, ClassDataset]:
        noise = torch.Generator().manual_seed(0)
        splits = super().load()
        for stage, split in list(splits.items()):
            assert isinstance(split.inputs, Tensor)
            more = torch.randint(0, 190, split.inputs.shape, generator=noise)
            images = (split.inputs // 4 + more).to(torch.uint8)
            splits[stage] = ClassDataset(images, split.counts, split.classes)
        return splits


def test_tip_adapter_takes_what_is_best_on_the_validation_episodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = "fewshot.learners.transfer.tip_adapter"
    alphas, betas = (0.1, 30.0, 1000.0), (0.5, 4.0, 40.0)
    monkeypatch.setattr(f"{place}.ALPHAS", alphas)
    monkeypatch.setattr(f"{place}.BETAS", betas)

    def learner(**given: Any) -> TipAdapter:
        torch.manual_seed(0)
        task = {"kind": "classification", "way": 3}
        return TipAdapter(MLP(16), task=task, train_classes=6, transform="cl2n", **given)

    def accuracy(alpha: float, beta: float) -> float:
        known = learner(alpha=alpha, beta=beta)
        alone.validate(known, data, verbose=False)
        return known.estimates["val"]["accuracy"].mean

    alone = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Noisy(way=3, shot=3, queries=4, val_episodes=12, test_episodes=5)
    searched = learner(search=True)
    with pytest.raises(FewshotError, match="has not searched for its alpha and beta"):
        searched.adapt(Examples(torch.rand(3, 16), torch.arange(3)))
    alone.test(searched, data, verbose=False)
    judged = {(alpha, beta): accuracy(alpha, beta) for beta in betas for alpha in alphas}
    assert len(set(judged.values())) > 2
    assert (searched.alpha, searched.beta) == max(judged, key=judged.__getitem__)
    assert searched.facts().items() >= {"alpha": searched.alpha, "beta": searched.beta}.items()
    assert "alpha" not in learner().facts()
    given = learner(alpha=searched.alpha, beta=searched.beta)
    alone.test(given, data, verbose=False)
    assert torch.equal(given.columns["test"]["accuracy"], searched.columns["test"]["accuracy"])


def test_bd_cspn_with_the_papers_weights_is_its_formula() -> None:
    support, labels, query = features()
    means = torch.stack([support[labels == c].mean(0) for c in range(WAY)])
    moved = query + support.mean(0) - query.mean(0)
    together = torch.cat([support, moved])
    near = F.cosine_similarity(together[:, None], means, dim=-1)
    of_class = torch.cat([labels, near[len(support) :].argmax(-1)])
    prototypes = []
    for c in range(WAY):
        weights = torch.exp(10 * near[of_class == c, c])
        prototypes.append((weights[:, None] * together[of_class == c]).sum(0) / weights.sum())
    expected = 10 * F.cosine_similarity(moved[:, None], torch.stack(prototypes), dim=-1)
    same(logits(made(BDCSPN), support, labels, query), expected)


def test_the_contrast_of_feat_sees_each_class_by_itself() -> None:
    learner, (support, labels, query) = made(FEAT), features()
    targets = torch.arange(WAY).repeat_interleave(QUERIES)
    embedded = Episode(Examples(support, labels), Examples(query, targets))
    together, classes = torch.cat([support, query]), torch.cat([labels, targets])
    centres = [learner.transformer(together[None, classes == c])[0].mean(0) for c in range(WAY)]
    squares = torch.cdist(together, torch.stack(centres)).square()
    expected = F.cross_entropy(-squares / 64, classes)
    same(learner.contrast(embedded), expected)
    outputs = logits(learner, support, labels, query)
    plain = learner.loss(outputs, embedded)
    learner.train()
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    same(learner.loss(outputs, embedded), plain + 0.1 * expected)


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 200.0])
def test_balanced_assignments_have_equal_columns_and_are_of_sinkhorns_form(
    sharpness: float,
) -> None:
    costs = torch.rand(2, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    plan = balanced_assignments(costs, sharpness)
    same(plan.sum(-2), torch.full((2, 4), 3.0).double(), 1e-5)
    assert plan.isfinite().all()
    if sharpness < 100:  # sharper ones take more rounds than there are
        same(plan.sum(-1), torch.ones(2, 12).double(), 1e-5)
        # log plan + sharpness c is a sum of a number a row and one a column
        rest = plan.log() + sharpness * costs
        rest = rest - rest.mean(-1, keepdim=True)
        same(rest, rest.mean(-2, keepdim=True).expand_as(rest), 1e-8)


# ------------------------------------------------------------------ what holds for all


@pytest.mark.parametrize("kind", HEADS)
def test_episodes_of_a_meta_batch_do_not_touch_each_other(kind: type[FeatureHead]) -> None:
    learner = made(kind)
    drawn = [features(seed) for seed in range(3)]
    support, labels, query = (torch.stack(part) for part in zip(*drawn, strict=True))
    together = learner.compare_all(learner.fit_all(support, labels, WAY), query)
    for outputs, one in zip(together, drawn, strict=True):
        same(outputs, logits(learner, *one), 1e-7)


@pytest.mark.parametrize("kind", HEADS)
def test_names_of_classes_and_the_order_of_the_support_do_not_matter(
    kind: type[FeatureHead],
) -> None:
    learner, (support, labels, query) = made(kind), features()
    found = logits(learner, support, labels, query)
    order, renamed = torch.randperm(len(labels)), torch.tensor([2, 0, 3, 1])
    same(logits(learner, support[order], labels[order], query), found, 1e-7)
    same(logits(learner, support, renamed[labels], query)[:, renamed], found, 1e-7)


@pytest.mark.parametrize("kind", HEADS)
def test_a_query_is_judged_by_itself_unless_the_head_is_transductive(
    kind: type[FeatureHead],
) -> None:
    learner, (support, labels, query) = made(kind), features()
    found = logits(learner, support, labels, query)
    alone = torch.cat([logits(learner, support, labels, one[None]) for one in query])
    transductive = issubclass(kind, TransductiveHead)
    assert torch.allclose(found, alone, atol=1e-7) != transductive
    assert learner.facts().get("transductive", False) == transductive


@pytest.mark.parametrize("transform", ["l2", "cl2n"])
def test_features_are_transformed_first(transform: str) -> None:
    learner, (support, labels, query) = made(RidgeRegression, transform=transform), features()
    center = torch.full((D,), 0.3).double() if transform == "cl2n" else torch.zeros(D).double()
    learner.center.copy_(center)
    by_hand = [F.normalize(part - center, dim=-1) for part in (support, query)]
    plain = logits(made(RidgeRegression), by_hand[0], labels, by_hand[1])
    same(logits(learner, support, labels, query), plain)


def test_with_many_queries_of_few_classes_transduction_helps() -> None:
    rng = np.random.default_rng(0)
    centres = 0.5 + 0.12 * rng.standard_normal((WAY, 1, D))
    drawn = centres + 0.15 * rng.standard_normal((WAY, 31, D))
    support, query = (
        torch.from_numpy(part.reshape(-1, D)) for part in (drawn[:, :1], drawn[:, 1:])
    )
    labels, targets = torch.arange(WAY), torch.arange(WAY).repeat_interleave(30)
    accuracy = {
        kind.__name__: float(
            (logits(made(kind), support, labels, query).argmax(-1) == targets).double().mean()
        )
        for kind in (NearestNeighbour, BDCSPN, LaplacianShot, PTMAP)
    }
    nearest = accuracy.pop("NearestNeighbour")
    assert all(value > nearest for value in accuracy.values()), (nearest, accuracy)
