"""SimpleShot against its equations in numpy, its centre, and how it comes by its weights."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from commands import FEW, QUIET, results
from torch import Tensor

from fewshot.backbones import MLP, Conv4
from fewshot.cli.main import main
from fewshot.datamodules import ImageDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import MAML, Baseline, PrototypicalNetwork, SimpleShot

WAY = 3
TASK = {"kind": "classification", "way": WAY}
GLYPHS = Path(__file__).resolve().parents[2] / "configs/glyphs"


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    labels = torch.stack([torch.tensor([0, 0, 0, 1, 2, 2])[torch.randperm(6)] for _ in range(4)])
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(4)])
    x, y = (torch.randn(4, 6, 4, dtype=torch.float64) for _ in range(2))
    return Episode(Examples(x, labels), Examples(y, query))


def learner(**kwargs: Any) -> SimpleShot:
    made = SimpleShot(MLP(4, (8, 5)), task=TASK, **kwargs).double().eval()
    made.set_center(
        [torch.randn(7, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)]
    )
    return made


@pytest.mark.parametrize("transform", ["none", "l2", "cl2n"])
def test_logits_are_those_of_the_equations(transform: str, batch: Episode) -> None:
    shot = learner(transform=transform)
    outcome = shot.evaluate(batch)

    def transformed(inputs: Any) -> np.ndarray:
        features: np.ndarray = shot.backbone(inputs).detach().numpy()
        if transform == "cl2n":
            features = features - shot.center.numpy()
        return (
            features
            if transform == "none"
            else features / np.sqrt((features**2).sum(1, keepdims=True))
        )

    for i in range(4):
        support, query = episode(batch, i)
        x, q, labels = (
            transformed(support.inputs),
            transformed(query.inputs),
            support.targets.numpy(),
        )
        means = np.stack([x[labels == c].mean(0) for c in range(WAY)])
        expected = -((q[:, None] - means) ** 2).sum(-1)
        np.testing.assert_allclose(outcome.outputs[i].numpy(), expected, rtol=1e-9, atol=1e-11)


def test_the_transforms_differ(batch: Episode) -> None:
    outputs = []
    for transform in ("none", "l2", "cl2n"):
        torch.manual_seed(0)
        outputs.append(learner(transform=transform).evaluate(batch).outputs)
    assert all(
        (a - b).abs().max() > 1e-2 for a, b in zip(outputs, [*outputs[1:], outputs[0]], strict=True)
    )


def test_the_centre_is_the_mean_feature_of_all_examples() -> None:
    shot = learner()
    x = torch.randn(10, 4, dtype=torch.float64)
    shot.set_center([x[:7], x[7:]])  # of other sizes: a mean of means would be wrong
    torch.testing.assert_close(shot.center, shot.backbone(x).mean(0), rtol=1e-12, atol=1e-12)


def test_order_and_names_of_the_classes(batch: Episode) -> None:
    shot = learner()
    support, query = episode(batch, 0)
    order, new_name = torch.tensor([4, 1, 5, 0, 3, 2]), torch.tensor([2, 0, 1])
    one = shot.predict(shot.adapt(support), query.inputs)
    shuffled = Examples(support.inputs[order], support.targets[order])  # type: ignore[index]
    torch.testing.assert_close(
        shot.predict(shot.adapt(shuffled), query.inputs), one, rtol=1e-12, atol=1e-12
    )
    renamed = support._replace(targets=new_name[support.targets])
    two = shot.predict(shot.adapt(renamed), query.inputs)
    torch.testing.assert_close(two[:, new_name], one, rtol=1e-12, atol=1e-12)
    assert (two - one).abs().max() > 1e-3


def test_without_a_centre_it_says_what_to_do(batch: Episode) -> None:
    shot = SimpleShot(MLP(4, (8, 5)), task=TASK).double()
    for use in (lambda: shot.adapt(episode(batch, 0).support), lambda: shot.evaluate(batch)):
        with pytest.raises(
            FewshotError, match=r"does not know its centre; call set_center.*, or set transform: l2"
        ):
            use()
    SimpleShot(MLP(4, (8, 5)), task=TASK, transform="l2").double().evaluate(batch)
    with pytest.raises(FewshotError, match=r"transform is 'cl2'; did you mean 'cl2n'\?"):
        SimpleShot(MLP(4, (8, 5)), task=TASK, transform="cl2")  # type: ignore[arg-type]


# ---------------------------------------------------------------- from a benchmark, and from checkp


class Images(ImageDataModule):
    """Random images."""

    benchmark = "Noise"
    can_download = False
    in_channels, image_size = 1, 16

    def load(self) -> dict[str, ClassDataset]:
        rng = np.random.default_rng(0)
        names = tuple(f"class{i}" for i in range(5))
        return {
            stage: ClassDataset(
                torch.from_numpy(rng.integers(0, 256, (40, 1, 16, 16)).astype(np.uint8)),
                np.full(5, 8),
                names,
            )
            for stage in ("train", "val", "test")
        }


def data() -> Images:
    return Images(way=3, queries=2, batch_size=12, val_episodes=2, test_episodes=4)


def trainer() -> L.Trainer:
    return L.Trainer(
        max_epochs=1,
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip


def saved(learner: Any, path: Path) -> str:
    run = trainer()
    run.strategy.connect(learner)
    run.save_checkpoint(path)
    return str(path)


@pytest.fixture
def protonet(tmp_path: Path) -> str:
    """The checkpoint of a network whose running averages are not the trivial ones."""
    source = PrototypicalNetwork(Conv4(1, 16, width=4), task=TASK)
    source.backbone(torch.rand(9, 1, 16, 16))
    return saved(source, tmp_path / "protonet.ckpt")


def test_a_test_finds_the_centre_once(
    protonet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot, images = SimpleShot(Conv4(1, 16, width=4), weights=protonet, task=TASK), data()
    (first,) = trainer().test(shot, images, verbose=False)
    inputs = images.datasets["train"].inputs
    assert isinstance(inputs, Tensor)
    with torch.no_grad():
        expected = shot.backbone.eval()(inputs / 255).mean(0)
    torch.testing.assert_close(shot.center, expected, rtol=1e-5, atol=1e-6)
    loaded = SimpleShot.load_from_checkpoint(saved(shot, tmp_path / "shot.ckpt"))
    assert torch.equal(loaded.center, shot.center)
    (tmp_path / "protonet.ckpt").unlink()  # it is not asked for again
    again = data()
    monkeypatch.setattr(
        again, "training_examples", lambda: pytest.fail("the checkpoint holds the centre")
    )
    assert trainer().test(
        SimpleShot.load_from_checkpoint(tmp_path / "shot.ckpt"), again, verbose=False
    ) == [first]


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_the_other_verbs_find_the_centre_too(verb: str, protonet: str) -> None:
    shot = SimpleShot(Conv4(1, 16, width=4), weights=protonet, task=TASK)
    getattr(trainer(), verb)(shot, data())
    assert shot.center.isfinite().all()


def test_weights_without_running_averages_need_the_transductive_policy(tmp_path: Path) -> None:
    source = saved(MAML(Conv4(1, 16, width=4), task=TASK), tmp_path / "maml.ckpt")
    with pytest.raises(
        FewshotError, match=r"maml.ckpt hold no running averages .*; set batchnorm: transductive"
    ):
        SimpleShot(Conv4(1, 16, width=4), weights=source, task=TASK)
    shot = SimpleShot(Conv4(1, 16, width=4), weights=source, task=TASK, batchnorm="transductive")
    trainer().test(shot, data(), verbose=False)
    inputs = [batch.examples.inputs for batch in data().training_examples()]
    network = shot.backbone.train()  # by the statistics of each batch
    with torch.no_grad():
        # tensors
        features = torch.cat([network(part / 255) for part in inputs])  # type: ignore[operator]
    torch.testing.assert_close(shot.center, features.mean(0), rtol=1e-5, atol=1e-6)


def test_it_cannot_be_trained() -> None:
    with pytest.raises(
        FewshotError, match="SimpleShot has nothing to train: train a backbone by another learner"
    ):
        trainer().fit(SimpleShot(Conv4(1, 16, width=4), task=TASK), data())


# ---------------------------------------------------------------- the command line


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["Baseline", "BaselinePlusPlus", "RFS", "FineTune"])
def test_another_learner_on_an_episodes_config(name: str, tmp_path: Path) -> None:
    config = f"--config={GLYPHS}/protonet_5way1shot.yaml"
    args = (
        "--model",
        name,
        "--model.backbone.width=4",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
    )
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", config, *args, *FEW, *QUIET, root]) == 0
    (run,) = (tmp_path / "lightning_logs").iterdir()
    assert (results(run)["learner"], results(run)["global_step"]) == (name, 2)
    checkpoint = str(run / "checkpoints/best.ckpt")
    shot = ("--model=SimpleShot", "--model.backbone.width=4", f"--model.weights={checkpoint}")
    assert main(["test", config, *shot, *FEW, *QUIET, root]) == 0
    (other,) = set((tmp_path / "lightning_logs").iterdir()) - {run}
    result = results(other)
    assert (result["learner"], result["checkpoint"], result["global_step"]) == (
        "SimpleShot",
        checkpoint,
        2,
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--data=SinusoidDataModule", "--model=Baseline", "--model.backbone=MLP"),
            (
                "Baseline needs train_classes, which SinusoidDataModule does not have; choose"
                " another learner, or a bench"
            ),
        ),
        (
            (
                "--data=GlyphsDataModule",
                "--model=RFS",
                "--model.backbone=Conv4",
                "--model.train_classes=5",
            ),
            "model.train_classes is 5 but GlyphsDataModule has train_classes ",
        ),
        (
            (
                "--data=GlyphsDataModule",
                "--data.batch_size=100000",
                "--model=RFS",
                "--model.backbone=Conv4",
            ),
            "batch_size 100000 does not fit ",
        ),
    ],
)
def test_refusals_are_one_line(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "fit",
                *args,
                *FEW,
                *QUIET,
                "--trainer.max_epochs=1",
                f"--trainer.default_root_dir={tmp_path}",
            ]
        )
        == 2
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"fewshot: error: {message}")


def test_the_training_classes_are_counted_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To count them the data are read, which must not happen before `prepare_data` without need."""
    read: list[str] = []
    original = ImageDataModule.train_classes.fget  # type: ignore[attr-defined]  # of the property

    def counted(self: ImageDataModule) -> int:
        read.append("once more")
        classes: int = original(self)
        return classes

    monkeypatch.setattr(ImageDataModule, "train_classes", property(counted), raising=False)
    for name, times in (("PrototypicalNetwork", False), ("Baseline", True)):
        args = (
            "--data=GlyphsDataModule",
            f"--model={name}",
            "--model.backbone=Conv4",
            "--model.backbone.width=4",
        )
        assert main(["test", *args, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}"]) == 0
        assert bool(read) == times


def test_a_baselines_checkpoint_serves_simple_shot(tmp_path: Path) -> None:
    path = saved(
        Baseline(Conv4(1, 16, width=4), task=TASK, train_classes=5), tmp_path / "baseline.ckpt"
    )
    shot = SimpleShot(Conv4(1, 16, width=4), weights=path, task=TASK)
    assert not any(name.startswith("classifier") for name in shot.state_dict())
