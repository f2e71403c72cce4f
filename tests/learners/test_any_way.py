"""Episodes of different way and shot in one meta-batch: none's outcome depends on the others."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import FEW, QUIET, fewshot, fit, results

import fewshot as library
from fewshot.backbones import Conv4
from fewshot.cli.main import main
from fewshot.episodes.types import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners import MetaLearner

ANY_WAY: dict[str, dict[str, Any]] = {
    "PrototypicalNetwork": {},
    "MatchingNetwork": {"full_context": True},
    "RelationNetwork": {},
    "SiameseNetwork": {},
    "R2D2": {},
    "SimpleShot": {"transform": "l2"},
    "ProtoMAML": {"inner_steps": 2},
    "Baseline": {"train_classes": 7, "head_epochs": 3},
    "BaselinePlusPlus": {"train_classes": 7, "head_epochs": 3},
    "RFS": {"train_classes": 7},
    "FineTune": {"train_classes": 7, "steps": 2},
}
EPISODIC = sorted(set(ANY_WAY) - {"SimpleShot", "Baseline", "BaselinePlusPlus", "RFS", "FineTune"})
ONE_WAY = ("MAML", "FOMAML", "ANIL", "Reptile", "MANN", "SNAIL", "CAVIA")
TASK: dict[str, Any] = {"kind": "classification", "way": None}


def drawn(way: int, shots: tuple[int, ...], seed: int) -> Episode:
    """An episode of images (1, 16, 16), axis B = 1, with so many support examples of each class."""
    generator = torch.Generator().manual_seed(seed)

    def examples(labels: torch.Tensor) -> Examples:
        # scaled, so that the statistics of one episode are not those of another
        images = seed * torch.rand(
            1, len(labels), 1, 16, 16, dtype=torch.float64, generator=generator
        )
        return Examples(images, labels[None])

    labels = torch.arange(way)
    return Episode(
        examples(labels.repeat_interleave(torch.tensor(shots))),
        examples(labels.repeat_interleave(2)),
    )


EPISODES = [drawn(2, (1, 3), 1), drawn(4, (2, 2, 1, 1), 2), drawn(3, (4, 1, 2), 3)]


def made(name: str, **arguments: Any) -> MetaLearner:
    torch.manual_seed(0)
    learner = getattr(library, name)(
        Conv4(1, 16, width=4), task=TASK, **ANY_WAY[name], **arguments
    ).double()
    assert isinstance(learner, MetaLearner)
    return learner


def outcomes(learner: MetaLearner, episodes: list[Episode], training: bool) -> list[Any]:
    """The loss and the logits of each episode of a meta-batch."""
    batch = MetaBatch(episodes)
    ran = learner.training_outcomes(batch) if training else learner.predict_step(batch, 0)
    return [(outcome.loss.detach(), outcome.outputs.detach()) for outcome in ran]


@pytest.mark.parametrize("batchnorm", ["inductive", "transductive"])
@pytest.mark.parametrize("name", ANY_WAY)
def test_evaluation_does_not_depend_on_the_other_episodes(name: str, batchnorm: str) -> None:
    learner = made(name, batchnorm=batchnorm).eval()
    together = outcomes(learner, EPISODES, training=False)
    assert [outputs.shape for _, outputs in together] == [(1, 2 * way, way) for way in (2, 4, 3)]
    for one, expected in zip(EPISODES, together, strict=True):
        (alone,) = outcomes(learner, [one], training=False)
        torch.testing.assert_close(alone, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EPISODIC)
def test_training_does_not_depend_on_the_other_episodes(name: str) -> None:
    learner = made(name).train()
    together = outcomes(learner, EPISODES, training=True)
    for one, expected in zip(reversed(EPISODES), reversed(together), strict=True):
        (alone,) = outcomes(learner, [one], training=True)
        torch.testing.assert_close(alone, expected, rtol=0, atol=0)


def test_padded_and_stacked_they_would_depend_on_each_other() -> None:
    # why they are not: batch normalisation has one set of statistics for all images that are
    # embedded at once
    learner = made("PrototypicalNetwork").train()
    # tensors
    images = [torch.cat([*(part.inputs[0] for part in one)]) for one in EPISODES]  # type: ignore[index]
    alone = learner.backbone(images[0])
    stacked = learner.backbone(torch.cat(images))[: len(images[0])]
    assert (alone - stacked).abs().max() > 0.1


def test_the_gradient_is_that_of_the_mean_over_episodes() -> None:
    learner = made("ProtoMAML").train()
    for one in EPISODES:
        for outcome in learner.training_outcomes(MetaBatch([one])):
            torch.autograd.backward(outcome.loss.sum() / 3)
    expected = [
        parameter.grad.clone() for parameter in learner.parameters() if parameter.grad is not None
    ]
    learner.zero_grad()
    loss = torch.cat(
        [outcome.loss for outcome in learner.training_outcomes(MetaBatch(EPISODES))]
    ).mean()
    torch.autograd.backward(loss)
    found = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ONE_WAY)
def test_learners_of_one_way_refuse(name: str) -> None:
    more = {"shot": 1} if name == "SNAIL" else {}
    with pytest.raises(
        FewshotError, match=rf"{name} has .* one way, but the benchmark's way differs .*; choose"
    ):
        getattr(library, name)(Conv4(1, 16, width=4), task=TASK, **more)


def test_a_compiled_inner_loop_is_refused() -> None:
    with pytest.raises(FewshotError, match=r"compile is on.*set compile: false"):
        made("ProtoMAML", compile=True)


@pytest.mark.parametrize("name", ["PrototypicalNetwork", "ProtoMAML", "RFS"])
def test_from_the_command_line(name: str, tmp_path: Path) -> None:
    options = (
        f"--model={name}",
        "--model.backbone=Conv4",
        "--model.backbone.width=4",
        "--data=GlyphsDataModule",
    )
    sizes = (
        "--data.ways=[2,6]",
        "--data.shots=[1,5]",
        "--data.queries=2",
        "--data.meta_batch_size=4",
    )
    run = fit(tmp_path, *options, *sizes)
    result = results(run)
    assert (result["way"], result["shot"], result["episodes"]) == ("2 to 6", "1 to 5", 3)
    assert (run / "episode.png").is_file()
    fewshot("predict", tmp_path, *options, *sizes)
    (predictions,) = tmp_path.glob("lightning_logs/*/predictions.csv")
    ways: dict[str, int] = {}
    for line in predictions.read_text().splitlines()[1:]:
        episode, _, label, *_ = line.split(",")
        ways[episode] = max(ways.get(episode, 0), int(label) + 1)
    assert len(ways) == 3
    assert len(set(ways.values())) > 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.ways=[5,2]", r"ways is \[5, 2\]; give the smallest and the largest"),
        ("--data.ways=[1,5]", "ways is .* at least 2"),
        ("--data.ways=[2,5000]", "classes, too few for .*way 5000"),
        ("--data.shots=[1,30]", "too few for .*shot 30"),
        (
            "--data.ways=[2,5] --data.train_way=4",
            "train_way does not go with ways; leave one of them out",
        ),
        (
            "--data.shots=[2,5] --data.unequal_shots=true --data.shot=2",
            "unequal_shots does not go with shots",
        ),
    ],
)
def test_bad_ranges(
    option: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=GlyphsDataModule")
    assert (
        main(
            [
                "test",
                *model,
                *option.split(),
                *FEW,
                *QUIET,
                f"--trainer.default_root_dir={tmp_path}",
            ]
        )
        == 2
    )
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors)


def test_counting_and_singling_out() -> None:
    meta_batch = MetaBatch(EPISODES)
    assert meta_batch.size == 3
    assert [one.support.targets.shape[1] for one in meta_batch.singles()] == [4, 6, 7]
