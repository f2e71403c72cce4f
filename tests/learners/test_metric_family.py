"""What every metric-based learner promises, on the same episodes in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from fewshot import OmniglotDataModule, SinusoidDataModule
from fewshot.backbones import MLP, Conv4
from fewshot.episodes.types import Episode, Examples, episode, stack
from fewshot.errors import FewshotError
from fewshot.learners import (
    R2D2,
    MatchingNetwork,
    MetricLearner,
    PrototypicalNetwork,
    RelationNetwork,
    SiameseNetwork,
)

WAY, EPISODES = 3, 4
TASK = {"kind": "classification", "way": WAY}
Make = Callable[..., MetricLearner]

LEARNERS: dict[str, tuple[type[MetricLearner], dict[str, Any]]] = {
    "prototypes": (PrototypicalNetwork, {}),
    "prototypes, unequal shots": (
        PrototypicalNetwork,
        {"unequal_shots": True, "learn_scale": True},
    ),
    "matching": (MatchingNetwork, {}),
    "matching, euclidean": (MatchingNetwork, {"distance": "euclidean"}),
    "full context": (MatchingNetwork, {"full_context": True, "read_steps": 2}),
    "relation": (RelationNetwork, {}),
    "relation, mean": (RelationNetwork, {"combine": "mean", "objective": "cross_entropy"}),
    "r2d2": (R2D2, {}),
    "siamese": (SiameseNetwork, {}),
    "siamese, mean": (SiameseNetwork, {"objective": "contrastive", "decide": "mean"}),
    "siamese, triplet": (SiameseNetwork, {"objective": "triplet", "mining": "semi_hard"}),
    "siamese, normalised": (
        SiameseNetwork,
        {"objective": "triplet", "normalise": True, "margin": 0.2},
    ),
}
ORDERED = ("full context",)  # reads the support with an LSTM: the paper promises no invariance


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=LEARNERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def learner(name: str) -> MetricLearner:
    cls, arguments = LEARNERS[name]
    result = cls(MLP(4, (7, 5), norm="batch"), task=TASK, **arguments).double()
    for module in result.modules():  # running averages that are not the trivial ones
        if isinstance(module, torch.nn.BatchNorm1d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.1, 0.1)
    return result.eval()


@pytest.fixture
def batch() -> Episode:
    """Episodes with 3, 1 and 2 support examples of the classes, in another order each."""
    labels = torch.stack(
        [torch.tensor([0, 0, 0, 1, 2, 2])[torch.randperm(6)] for _ in range(EPISODES)]
    )
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(EPISODES)])
    x, y = (torch.randn(EPISODES, 6, 4, dtype=torch.float64) for _ in range(2))
    return Episode(Examples(x, labels), Examples(y, query))


def test_a_meta_batch_is_its_episodes_one_by_one(learner: MetricLearner, batch: Episode) -> None:
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        alone = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], alone, rtol=1e-11, atol=1e-11)
    assert (outcome.outputs[0] - outcome.outputs[1]).abs().max() > 1e-4


def test_the_order_of_the_support_does_not_matter(
    name: str, learner: MetricLearner, batch: Episode
) -> None:
    support, query = episode(batch, 0)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    assert isinstance(support.inputs, torch.Tensor)
    shuffled = Examples(support.inputs[order], support.targets[order])
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, shuffled))
    if name in ORDERED:
        assert (one - two).abs().max() > 1e-6
    else:
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_renaming_the_classes_renames_the_logits(learner: MetricLearner, batch: Episode) -> None:
    support, query = episode(batch, 0)
    new_name = torch.tensor([2, 0, 1])
    renamed = support._replace(targets=new_name[support.targets])
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, renamed))
    torch.testing.assert_close(two[:, new_name], one, rtol=1e-10, atol=1e-10)
    assert (two - one).abs().max() > 1e-4


def test_queries_do_not_see_each_other_where_inductive(
    learner: MetricLearner, batch: Episode
) -> None:
    assert isinstance(batch.query.inputs, torch.Tensor)
    other = torch.randn_like(batch.query.inputs)
    other[:, 0] = batch.query.inputs[:, 0]
    one, two = (
        learner.evaluate(batch._replace(query=batch.query._replace(inputs=inputs))).outputs
        for inputs in (batch.query.inputs, other)
    )
    torch.testing.assert_close(one[:, 0], two[:, 0], rtol=1e-12, atol=1e-12)
    assert (one[:, 1] - two[:, 1]).abs().max() > 1e-4


def test_every_weight_has_a_gradient_that_finite_differences_confirm(
    learner: MetricLearner, batch: Episode
) -> None:
    def loss() -> torch.Tensor:
        (outcome,) = learner.run(batch, training=True)
        return outcome.loss.mean()

    learner.train()
    weights = [weight for _, weight in learner.named_parameters()]
    gradients = torch.autograd.grad(loss(), weights)
    step = 1e-6
    for weight, gradient in zip(weights, gradients, strict=True):
        place = int(gradient.abs().argmax())
        flat = weight.data.view(-1)
        kept = flat[place].item()
        flat[place] = kept + step
        above = loss().item()
        flat[place] = kept - step
        below = loss().item()
        flat[place] = kept
        assert (above - below) / (2 * step) == pytest.approx(
            gradient.view(-1)[place].item(), rel=1e-4, abs=1e-7
        )


def test_transductive_evaluation_uses_the_episodes_own_statistics(
    name: str, batch: Episode
) -> None:
    cls, arguments = LEARNERS[name]
    network = (
        cls(MLP(4, (7, 5), norm="batch"), task=TASK, batchnorm="transductive", **arguments)
        .double()
        .eval()
    )
    before = {key: buffer.clone() for key, buffer in network.named_buffers()}
    outputs = network.evaluate(batch).outputs
    assert all(torch.equal(buffer, before[key]) for key, buffer in network.named_buffers())
    network.train()  # by the statistics of what is passed in
    for i in range(EPISODES):
        (alone,) = network.run(stack([episode(batch, i)]), training=True)
        torch.testing.assert_close(outputs[i], alone.outputs[0], rtol=1e-10, atol=1e-10)


def test_a_checkpoint_rebuilds_the_learner(name: str, tmp_path: Path, own_data_root: Path) -> None:
    from fakes import fake_omniglot

    fake_omniglot(own_data_root)
    cls, arguments = LEARNERS[name]
    data = OmniglotDataModule(way=3, queries=2, train_episodes=4, val_episodes=2, meta_batch_size=2)
    network = cls(Conv4(1, width=4), task=data.task, **arguments)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
    )
    trainer.fit(network, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = cls.load_from_checkpoint(tmp_path / "last.ckpt").eval()
    network.eval()
    images = torch.rand(6, 1, 28, 28)
    support = Examples(images, torch.arange(3).repeat(2))
    assert torch.equal(
        loaded.predict(loaded.adapt(support), images),
        network.predict(network.adapt(support), images),
    )


def test_regression_is_refused_in_one_line(name: str) -> None:
    cls, arguments = LEARNERS[name]
    with pytest.raises(
        FewshotError,
        match=f"{cls.__name__} is made for classification, but the benchmark's task is regression",
    ):
        cls(MLP(1), task=SinusoidDataModule().task, **arguments)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (
            PrototypicalNetwork,
            {"unequal_shots": True, "distance": "cosine"},
            "distance is cosine; use euclidean",
        ),
        (PrototypicalNetwork, {"scale": 0.0}, "scale is 0.0; set scale > 0"),
        (MatchingNetwork, {"full_context": True, "read_steps": 0}, "read_steps is 0"),
        (R2D2, {"penalty": -1.0}, "penalty is -1.0; set penalty > 0"),
        (SiameseNetwork, {"margin": 0.0}, "margin is 0.0; set margin > 0"),
    ],
)
def test_bad_arguments(cls: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        cls(MLP(4, (5,)), task=TASK, **arguments)
