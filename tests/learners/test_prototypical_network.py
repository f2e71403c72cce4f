"""The Prototypical Network against its equations, written out class by class in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import torch
from torch import Tensor

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import ImageDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import MAML, PrototypicalNetwork
from fewshot.learners.metric.classes import class_means

WAY, EPISODES, FEATURES = 3, 4, 5
TASK = {"kind": "classification", "way": WAY}
Distance = Literal["euclidean", "cosine"]


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def written_out(
    support: Tensor, labels: Tensor, query: Tensor, distance: str, scale: float
) -> Tensor:
    """Logits of one episode's features, number by number."""
    rows = []
    for q in query:
        row = []
        for label in range(int(labels.max()) + 1):
            members = [s for s, other in zip(support, labels, strict=True) if other == label]
            prototype = torch.stack(members).sum(0) / len(members)
            if distance == "euclidean":
                row.append(-((q - prototype) ** 2).sum())
            else:
                row.append(
                    (q * prototype).sum()
                    / ((q * q).sum().sqrt() * (prototype * prototype).sum().sqrt())
                )
        rows.append(torch.stack(row))
    return scale * torch.stack(rows)


@pytest.fixture
def batch() -> Episode:
    """Episodes with 3, 1 and 2 support examples of the classes, in another order each."""
    labels = torch.stack(
        [torch.tensor([0, 0, 0, 1, 2, 2])[torch.randperm(6)] for _ in range(EPISODES)]
    )
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(EPISODES)])
    x, y = (torch.randn(EPISODES, 6, 4, dtype=torch.float64) for _ in range(2))
    return Episode(Examples(x, labels), Examples(y, query))


@pytest.mark.parametrize(("distance", "scale"), [("euclidean", 1.0), ("cosine", 10.0)])
def test_loss_and_gradient_are_those_of_the_equations(
    distance: Distance, scale: float, batch: Episode
) -> None:
    learner = PrototypicalNetwork(
        MLP(4, (7, FEATURES)), task=TASK, distance=distance, scale=scale
    ).double()
    (outcome,) = learner.run(batch, training=True)
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        features = [learner.backbone(part.inputs) for part in (support, query)]
        logits = written_out(features[0], support.targets, features[1], distance, scale)
        torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-11, atol=1e-11)
        losses.append(
            -(logits - logits.exp().sum(1, keepdim=True).log())[range(6), query.targets].mean()
        )
        accuracy = (logits.argmax(1) == query.targets).double().mean()
        assert outcome.metrics["accuracy"][i].item() == pytest.approx(accuracy.item())
    torch.testing.assert_close(outcome.loss, torch.stack(losses), rtol=1e-11, atol=1e-11)
    weights = list(learner.parameters())
    gradients = [
        torch.autograd.grad(loss, weights)
        for loss in (outcome.loss.mean(), torch.stack(losses).mean())
    ]
    for one, two in zip(*gradients, strict=True):
        assert two.abs().max() > 1e-4
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_order_of_the_support_does_not_matter(distance: Distance, batch: Episode) -> None:
    learner = PrototypicalNetwork(MLP(4, (FEATURES,)), task=TASK, distance=distance).double()
    support, query = episode(batch, 0)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    shuffled = Examples(support.inputs[order], support.targets[order])  # type: ignore[index]
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, shuffled))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_renaming_the_classes_renames_the_logits(distance: Distance, batch: Episode) -> None:
    learner = PrototypicalNetwork(MLP(4, (FEATURES,)), task=TASK, distance=distance).double()
    support, query = episode(batch, 0)
    new_name = torch.tensor([2, 0, 1])
    renamed = support._replace(targets=new_name[support.targets])
    one, two = (learner.predict(learner.adapt(part), query.inputs) for part in (support, renamed))
    torch.testing.assert_close(two[:, new_name], one, rtol=1e-12, atol=1e-12)
    assert (two - one).abs().max() > 1e-3


def test_prototypes_are_class_means() -> None:
    features = torch.tensor([[1.0, 2.0], [10.0, 20.0], [3.0, 6.0]])
    assert class_means(features, torch.tensor([1, 0, 1]), 2).tolist() == [[10.0, 20.0], [2.0, 4.0]]


def test_the_way_is_the_episodes() -> None:
    learner = PrototypicalNetwork(MLP(4, (FEATURES,)), task={**TASK, "train_way": 7})
    support = Examples(torch.randn(14, 4), torch.arange(7).repeat(2))
    assert learner.predict(learner.adapt(support), torch.randn(3, 4)).shape == (3, 7)


# ---------------------------------------------------------------- use without a Trainer, checkpoint


class Images(ImageDataModule):
    """Random images."""

    benchmark = "Random"
    can_download = False
    in_channels, image_size = 1, 16
    dataset: ClassDataset

    def load(self) -> dict[str, ClassDataset]:
        return dict.fromkeys(("train", "val", "test"), self.dataset)


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, class_dataset: Callable[..., ClassDataset]
) -> tuple[PrototypicalNetwork, Path]:
    folder = tmp_path_factory.mktemp("protonet")
    data = Images(
        way=3, queries=2, meta_batch_size=2, train_episodes=4, val_episodes=2, test_episodes=2
    )
    data.dataset = class_dataset(size=16)
    learner = PrototypicalNetwork(
        Conv4(1, 16, width=4), task=data.task, distance="cosine", scale=7.0
    )
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return learner, folder / "last.ckpt"


def test_a_checkpoint_needs_no_arguments_and_holds_plain_values(
    checkpoint: tuple[PrototypicalNetwork, Path],
) -> None:
    learner, path = checkpoint
    held = torch.load(path, weights_only=True)
    assert held["fewshot"]["learner"] == "PrototypicalNetwork"
    loaded = PrototypicalNetwork.load_from_checkpoint(path)
    assert (loaded.scale, loaded.init_args["distance"], loaded.task) == (
        7.0,
        "cosine",
        learner.task,
    )
    assert loaded.similarity is learner.similarity
    assert list(loaded.state_dict()) == list(learner.state_dict())
    pairs = zip(loaded.state_dict().values(), learner.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("inference_mode", [False, True])
def test_it_adapts_and_predicts_without_a_trainer(
    checkpoint: tuple[PrototypicalNetwork, Path], inference_mode: bool
) -> None:
    learner, path = checkpoint
    loaded = PrototypicalNetwork.load_from_checkpoint(path)
    loaded.backbone.blocks[3].eval()  # type: ignore[index,union-attr]  # as a user freezes a part
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    modes = [module.training for module in loaded.modules()]
    x = torch.rand(1, 3, 1, 16, 16), torch.rand(1, 4, 1, 16, 16)
    y = torch.arange(3)[None], torch.tensor([[0, 1, 2, 0]])
    with torch.inference_mode(inference_mode):
        outputs = loaded.predict(loaded.adapt(Examples(x[0][0], y[0][0])), x[1][0])
    learner.eval()
    expected = learner.evaluate(Episode(Examples(x[0], y[0]), Examples(x[1], y[1]))).outputs[0]
    torch.testing.assert_close(outputs, expected)
    # no trace is left in the network, not in its running averages either
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert [module.training for module in loaded.modules()] == modes


def test_other_checkpoints_are_refused(
    checkpoint: tuple[PrototypicalNetwork, Path], tmp_path: Path
) -> None:
    _, path = checkpoint
    with pytest.raises(
        FewshotError, match=r"holds a PrototypicalNetwork, not a MAML; load it with --model Proto"
    ):
        MAML.load_from_checkpoint(path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(FewshotError, match="not written by fewshot; train a PrototypicalNetwork"):
        PrototypicalNetwork.load_from_checkpoint(tmp_path / "foreign.ckpt")


def test_a_users_backbone_is_passed_in(tmp_path: Path) -> None:
    class Own(torch.nn.Linear):
        pass

    learner: Any = PrototypicalNetwork(Own(4, FEATURES), task=TASK)
    assert learner.hparams["backbone"]["init_args"] is None
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    with pytest.raises(
        FewshotError, match=r"does not hold the arguments of backbone .*Own; pass backbone="
    ):
        PrototypicalNetwork.load_from_checkpoint(tmp_path / "own.ckpt")
    loaded = PrototypicalNetwork.load_from_checkpoint(
        tmp_path / "own.ckpt", backbone=Own(4, FEATURES)
    )
    assert torch.equal(loaded.backbone.weight, learner.backbone.weight)  # type: ignore[arg-type]
