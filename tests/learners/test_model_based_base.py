"""What model-based learners share: embedding, batch norm, refusals, texts, checkpoints, CLI."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import FEW, QUIET, fewshot, fit, results
from fakes import fake_clinc150, fake_omniglot
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4, Pixels, TextCNN
from fewshot.cli.main import main
from fewshot.datamodules import GaussianProcessDataModule, ImageDataModule, SinusoidDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import ANP, CNP, MANN, SNAIL, GaussianProcess, MetaLearner
from fewshot.learners.base import BatchNormPolicy

TASK = {"kind": "classification", "way": 3}
SMALL = ("--model.hidden=8", "--model.slots=6", "--model.slot_size=4")  # of a MANN


def snail(backbone: nn.Module, **kwargs: Any) -> SNAIL:
    return SNAIL(backbone, task=TASK, shot=1, filters=4, keys=(3, 3, 3), values=(2, 2, 2), **kwargs)


def mann(backbone: nn.Module, **kwargs: Any) -> MANN:
    return MANN(backbone, task=TASK, hidden=8, slots=6, slot_size=4, **kwargs)


MAKERS: tuple[Callable[..., MetaLearner], ...] = (snail, mann)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def images(queries: int = 2) -> Episode:
    """Three episodes of 3-way 1-shot."""

    def examples(a_class: int) -> Examples:
        labels = torch.arange(3).repeat_interleave(a_class).expand(3, -1)
        return Examples(torch.rand(3, 3 * a_class, 1, 16, 16, dtype=torch.float64), labels)

    return Episode(examples(1), examples(queries))


@pytest.mark.parametrize("make", MAKERS)
def test_a_frozen_backbone_stays_as_it_is(make: Callable[..., MetaLearner]) -> None:
    learner, batch = make(Conv4(1, 16, width=4), frozen=True).double().train(), images()
    held = {name: value.clone() for name, value in learner.backbone.state_dict().items()}
    (outcome,) = learner.run(batch, training=True)
    outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in learner.backbone.parameters())
    others = [
        weight for name, weight in learner.named_parameters() if not name.startswith("backbone.")
    ]
    assert all(weight.grad is not None for weight in others)
    assert all(
        torch.equal(value, held[name]) for name, value in learner.backbone.state_dict().items()
    )
    # by the same averages
    torch.testing.assert_close(learner.eval().evaluate(batch).outputs, outcome.outputs)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("policy", ["inductive", "transductive"])
def test_batch_normalisation_follows_the_policy(
    make: Callable[..., MetaLearner], policy: BatchNormPolicy
) -> None:
    learner = make(Conv4(1, 16, width=4), batchnorm=policy).double()
    # running averages that are not the trivial ones
    learner.backbone(torch.rand(9, 1, 16, 16, dtype=torch.float64))
    learner.eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    batch = images()
    outcome = learner.evaluate(batch)
    other = batch.query.inputs.clone()  # type: ignore[union-attr]
    other[:, 1:] = torch.rand_like(other[:, 1:])
    changed = learner.evaluate(batch._replace(query=batch.query._replace(inputs=other)))
    seen = (outcome.outputs[:, 0] - changed.outputs[:, 0]).abs().max()
    assert seen < 1e-12 if policy == "inductive" else seen > 1e-9
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    if policy == "inductive":
        support, query = episode(batch, 1)
        predicted = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(predicted, outcome.outputs[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_training_embeds_the_meta_batch_in_one_pass(make: Callable[..., MetaLearner]) -> None:
    learner = make(Conv4(1, 16, width=4)).double().train()
    list(learner.run(images(), training=True))
    layers = [layer for layer in learner.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [int(layer.num_batches_tracked) for layer in layers] == [1] * 4  # type: ignore[arg-type]


@pytest.mark.parametrize("make", MAKERS)
def test_texts_are_read(make: Callable[..., MetaLearner]) -> None:
    def examples(a_class: int) -> Examples:
        labels = torch.arange(3).repeat_interleave(a_class).expand(2, -1)
        tokens = torch.randint(2, 20, (2, 3 * a_class, 6))
        return Examples({"tokens": tokens, "lengths": torch.full((2, 3 * a_class), 6)}, labels)

    learner = make(TextCNN(20, embedding_dim=4, filters=2))
    batch = Episode(examples(1), examples(2))
    (outcome,) = learner.run(batch, training=False)
    support, query = episode(batch, 1)
    torch.testing.assert_close(
        learner.predict(learner.adapt(support), query.inputs), outcome.outputs[1]
    )
    assert (outcome.outputs[0] - outcome.outputs[1]).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CNP(Pixels(1), task=TASK),
            (
                "CNP is made for regression, but the benchmark's task is classification; choose"
                " another learner"
            ),
        ),
        (lambda: ANP(Pixels(1), task=TASK), "ANP is made for regression"),
        (lambda: GaussianProcess(task=TASK), "GaussianProcess is made for regression"),
        (
            lambda: MANN(Pixels(1), task={"kind": "regression"}),
            "MANN is made for classification, but the benchmark's task is regression",
        ),
        (
            lambda: SNAIL(Pixels(1), task={"kind": "regression"}, shot=1),
            "SNAIL is made for classification",
        ),
        (
            lambda: MANN(Pixels(1), task={**TASK, "train_way": 60}),
            (
                "MANN has one head for all episodes, but train_way is 60 and way is 3; set"
                " train_way to 3 or choose"
            ),
        ),
    ],
)
def test_tasks_that_do_not_fit_are_refused(make: Callable[[], MetaLearner], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        make()


# ---------------------------------------------------------------- checkpoints


class Drawings(ImageDataModule):
    """Random images."""

    benchmark = "Random"
    can_download = False
    in_channels, image_size = 1, 16
    dataset: ClassDataset

    def load(self) -> dict[str, ClassDataset]:
        return dict.fromkeys(("train", "val", "test"), self.dataset)


@pytest.mark.parametrize("make", [*MAKERS, CNP, ANP])
def test_a_checkpoint_rebuilds_its_learner(
    make: Any, tmp_path: Path, class_dataset: Callable[..., ClassDataset]
) -> None:
    sizes: dict[str, Any] = {
        "queries": 2,
        "meta_batch_size": 2,
        "train_episodes": 4,
        "val_episodes": 2,
        "test_episodes": 2,
    }
    if make in MAKERS:
        data: Any = Drawings(way=3, **sizes)
        data.dataset = class_dataset(size=16)
        learner = make(Conv4(1, 16, width=4))
    else:
        data = SinusoidDataModule(**sizes)
        learner = make(Pixels(1), task=data.task, width=8, min_deviation=0.2)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = type(learner).load_from_checkpoint(tmp_path / "last.ckpt")
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0).stacked
    learner.eval()
    found, expected = (one.evaluate(batch).outputs for one in (loaded.eval(), learner))
    assert torch.equal(found, expected)
    support, query = episode(batch, 1)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.predict(loaded.adapt(support), query.inputs), expected[1])
    assert loaded.task == learner.task


# ---------------------------------------------------------------- the command line


def test_the_prototypical_networks_config_gives_way_and_an_option_does_not(
    own_data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_omniglot(own_data_root)
    config = Path(__file__).resolve().parents[2] / "configs/omniglot/protonet_5way1shot.yaml"
    options = (f"--config={config}", "--model.backbone.width=4", "--data.queries=2")
    for learner in ("SNAIL", "MANN"):
        assert (
            main(
                [
                    "fit",
                    *options,
                    f"--model={learner}",
                    "--data.train_way=60",
                    *FEW,
                    *QUIET,
                    f"--trainer.default_root_dir={tmp_path}",
                ]
            )
            == 2
        )
        assert (
            f"{learner} has one head for all episodes, but train_way is 60 and way is 5; set"
            " train_way to 5" in (capsys.readouterr().err.splitlines()[-1])
        )
        limits = ("--trainer.max_epochs=1", "--trainer.max_steps=2", "--data.train_episodes=2")
        run = fewshot("fit", tmp_path, *options, *limits, f"--model={learner}")
        assert results(run)["learner"] == learner


def test_snail_takes_its_shot_from_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args: tuple[str, ...] = (
        "--model=SNAIL",
        "--model.filters=4",
        "--model.backbone=Conv4",
        "--model.backbone.width=4",
    )
    args += (
        "--data=GlyphsDataModule",
        "--data.queries=2",
        "--data.shot=2",
        "--data.meta_batch_size=4",
    )
    run = fit(tmp_path, *args)
    assert results(run)["shot"] == 2
    refused = ["fit", *args, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}"]
    refused.append("--trainer.max_epochs=1")
    assert main([*refused, "--model.shot=3"]) == 2
    assert (
        "model.shot is 3 but GlyphsDataModule has shot 2; leave model.shot out"
        in capsys.readouterr().err
    )
    assert main([*refused, "--data.train_shot=1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "SNAIL was built for supports of 5-way 2-shot, but one has 5 examples" in error


@pytest.mark.parametrize("learner", ["SNAIL", "MANN"])
def test_intents_are_learned_from_texts(learner: str, tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path / "clinc")
    args: tuple[str, ...] = (
        f"--model={learner}",
        "--model.backbone=WeightedBag",
        "--data=CLINC150DataModule",
        f"--data.root={root}",
    )
    args += SMALL if learner == "MANN" else ()
    run = fit(tmp_path, *args, "--data.queries=2", "--data.meta_batch_size=4")
    assert results(run)["learner"] == learner


@pytest.mark.parametrize("learner", ["CNP", "ANP"])
def test_processes_learn_sine_waves(learner: str, tmp_path: Path) -> None:
    args = (
        f"--model={learner}",
        "--model.backbone=Pixels",
        "--model.width=8",
        "--data=SinusoidDataModule",
    )
    run = fit(tmp_path, *args, "--data.meta_batch_size=4", "--data.train_shots=[2,5]")
    assert set(results(run)["metrics"]) == {"loss", "log_likelihood", "mse", "coverage95"}
    held = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    monitors = [state.get("monitor") for state in held["callbacks"].values()]
    assert "val/log_likelihood" in monitors


def test_the_exact_process_takes_its_kernel_from_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    args = (
        "--model=GaussianProcess",
        "--data=GaussianProcessDataModule",
        "--data.length_scale=0.9",
        "--data.noise=0.3",
    )
    run = fewshot("test", tmp_path, *args)
    result = results(run)
    assert (result["length_scale"], result["variance"], result["noise"]) == (0.9, 1.0, 0.3)
    data = GaussianProcessDataModule(length_scale=0.9, noise=0.3, test_episodes=3)
    learner = GaussianProcess(0.9, 1.0, 0.3, task=data.task)
    batch = next(iter(data.test_dataloader())).stacked
    expected = learner.evaluate(map_tensors(Tensor.clone, batch)).metrics["log_likelihood"].mean()
    assert result["metrics"]["log_likelihood"]["mean"] == pytest.approx(expected.item())
    refused = ["test", *args, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}"]
    assert main([*refused, "--model.noise=0.2"]) == 2
    assert (
        "model.noise is 0.2 but GaussianProcessDataModule has noise 0.3" in capsys.readouterr().err
    )
    tested = results(fewshot("fit", tmp_path, *args, "--trainer.max_epochs=1"))
    assert tested["metrics"] == result["metrics"]
    said = "GaussianProcess on Pixels has nothing to train: it is tested at once"
    assert said in caplog.messages


def test_a_kernel_by_hand_suits_any_function(tmp_path: Path) -> None:
    run = fewshot(
        "test",
        tmp_path,
        "--model=GaussianProcess",
        "--model.length_scale=1",
        "--data=SinusoidDataModule",
    )
    assert results(run)["benchmark"] == "Sinusoid"


def test_the_backbone_of_a_process_may_be_any() -> None:
    learner = CNP(MLP(1, (5,)), task={"kind": "regression"}, width=4)
    assert learner.encoder[0].in_features == 6
