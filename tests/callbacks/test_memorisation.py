"""The three figures that tell memorised tasks from learning to learn, and the sentence about them."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import fit

from fewshot.backbones import MLP
from fewshot.callbacks.memorisation import Figures, Memorisation
from fewshot.datamodules import ClassificationDataModule, SinusoidDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.learners import MAML, PrototypicalNetwork

WAY = 3


class Points(ClassificationDataModule):
    """Classes whose points all are the one-hot vector of the class; 12 classes to train on."""

    benchmark, in_features = "Points", 24
    facts = ("in_features",)

    def load(self) -> dict[str, ClassDataset]:
        import numpy as np

        splits = {}
        for split, classes in {
            "train": range(12),
            "val": range(12, 24),
            "test": range(12, 24),
        }.items():
            inputs = torch.eye(24)[list(classes)].repeat_interleave(20, 0)
            names = tuple(map(str, classes))
            splits[split] = ClassDataset(inputs, np.full(12, 20), names)
        return splits


def trained(learner: Any, data: Any, epochs: int, callback: Memorisation) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[callback],
    )  # fmt: skip
    trainer.fit(learner, data)
    return trainer


def points(assignment: Any) -> Points:
    return Points(
        way=WAY, queries=5, label_assignment=assignment, train_episodes=400, val_episodes=50,
        meta_batch_size=8,
    )  # fmt: skip


def maml(**arguments: Any) -> MAML:
    torch.manual_seed(0)
    task = {"kind": "classification", "way": WAY}
    adam = lambda parameters: torch.optim.Adam(parameters, 0.05)  # noqa: E731
    return MAML(MLP(24, [32]), inner_lr=0.5, task=task, optimizer=adam, **arguments)


@pytest.mark.filterwarnings("ignore:The .* does not have many workers", "ignore:.*log_every")
def test_fixed_labels_are_memorised_and_random_ones_are_not() -> None:
    found = {}
    for assignment in ("fixed", "random"):
        callback = Memorisation()
        trained(maml(), points(assignment), 3, callback)
        assert callback.figures is not None
        found[assignment] = callback.figures
    fixed, mixed = found["fixed"], found["random"]
    assert fixed.unadapted is not None and fixed.unadapted > 0.9  # noqa: PT018
    assert fixed.memorised
    assert "memorises its training tasks: answers" in fixed.sentence()
    assert "without a support (chance 33 %); see docs/challenges.md" in fixed.sentence()
    assert mixed.unadapted is not None and mixed.unadapted < 0.6  # noqa: PT018
    assert mixed.follows is not None and mixed.follows > 0.9  # noqa: PT018
    assert not mixed.memorised


@pytest.mark.filterwarnings("ignore:The .* does not have many workers", "ignore:.*log_every")
def test_figures_are_of_the_learner_as_it_is_and_cost_what_they_may() -> None:
    callback, data = Memorisation(), points("random")
    calls: list[int] = []

    class Counting(PrototypicalNetwork):
        def evaluate(self, episodes: Any) -> Any:
            calls.append(len(episodes.support.targets))
            return super().evaluate(episodes)

    torch.manual_seed(0)
    learner = Counting(MLP(24, [8]), task=data.task)
    trained(learner, data, 1, callback)
    figures = callback.figures
    assert figures is not None
    # 5 % of 50 + 400 evaluations, 2.5 of which an episode costs
    assert figures.episodes == 9
    assert sum(calls) == 50 + 2 * 9
    assert figures.unadapted is None, "a Prototypical Network has no state without a support"
    assert figures.follows == pytest.approx(figures.training), (
        "it knows labels by the support alone"
    )
    assert figures.validation == learner.estimates["val"]["accuracy"].mean


@pytest.mark.filterwarnings("ignore:The .* does not have many workers", "ignore:.*log_every")
def test_it_can_be_turned_off() -> None:
    callback = Memorisation(share=0)
    trained(maml(), points("fixed"), 1, callback)
    assert callback.figures is None


def test_a_revealed_sinusoid_is_told_by_its_error() -> None:
    known = Figures("mse", 0.02, 0.9, 0.03, 3.0, None, 8)
    assert known.memorised
    assert known.gap == pytest.approx(0.88)
    assert "has an error of 0.03 without a support (a constant: 3)" in known.sentence()
    fine = known._replace(unadapted=3.5, validation=0.03)
    assert not fine.memorised
    assert "learns from supports: 0.02 on training tasks, 0.03 on validation" in fine.sentence()
    # measured of MRMAML: what it sees tells the amplitude, but it needs the support
    helped = known._replace(training=0.045, unadapted=0.97, validation=0.04)
    assert not helped.memorised
    assert "learns from supports: 0.045 on training tasks" in helped.sentence()
    seen = Figures("accuracy", 0.99, 0.6, 0.21, 0.2, 0.98, 64)
    assert "knows its training classes better: 99 % on new episodes" in seen.sentence()
    blind = seen._replace(unadapted=None, follows=0.1)
    assert blind.memorised
    assert "follows permuted labels in 10 % of queries" in blind.sentence()


def test_results_and_the_end_of_a_run_tell_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(
        tmp_path, "--model=MAML", "--model.backbone=MLP", "--data=SinusoidDataModule",
        "--data.reveal_task=true", "--data.meta_batch_size=4",
        "--trainer.callbacks=fewshot.callbacks.memorisation.Memorisation",
        "--trainer.callbacks.share=2",
    )  # fmt: skip
    result = json.loads((run / "results.json").read_text())
    assert {"gap", "unadapted", "chance", "memorised", "says"} <= result["memorisation"].keys()
    assert result["memorisation"]["says"] in " ".join(capsys.readouterr().out.split())


def test_tasks_of_the_training_classes_have_validations_sizes() -> None:
    data = Points(way=WAY, train_way=6, queries=5, train_queries=2, label_assignment="random")
    tasks: Any = data.training_tasks_alike()
    assert (tasks.way, tasks.queries) == (WAY, 5)
    assert tasks.dataset is data.datasets["train"]
    assert Points(way=WAY, queries=30, train_queries=5).__dict__  # validation is refused elsewhere
    fixed = Points(way=WAY, train_way=6, label_assignment="fixed")
    assert fixed.training_tasks_alike() is None, "other groups than training's mean nothing"
    revealed: Any = SinusoidDataModule(reveal_task=True, shot=3).training_tasks_alike()
    assert revealed.training
