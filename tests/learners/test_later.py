"""A learner without a task takes it, and other facts it needs, from the Trainer's DataModule."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import TinyImages
from jsonargparse import ArgumentParser

from fewshot import (
    MAML,
    MLP,
    BanditDataModule,
    FewshotError,
    FineTune,
    PrototypicalNetwork,
    SinusoidDataModule,
    ThompsonSampling,
)
from fewshot.learners import MetaLearner

CLASSES: list[type[MetaLearner]] = [MAML, FineTune, PrototypicalNetwork]  # FineTune: train_classes


def benchmark() -> TinyImages:
    return TinyImages(
        way=3, shot=2, queries=3, train_episodes=8, val_episodes=2, test_episodes=3, batch_size=12
    )


def trainer(**given: Any) -> L.Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, **given})


def backbone() -> MLP:
    torch.manual_seed(0)
    return MLP(16, (8,))


@pytest.mark.parametrize("cls", CLASSES)
def test_it_trains_as_with_its_task(cls: type[MetaLearner], tmp_path: Path) -> None:
    data, weights = benchmark(), []
    facts: dict[str, Any] = {"task": data.task}
    if cls is FineTune:
        facts["train_classes"] = data.train_classes
    for given in ({}, facts):
        learner: Any = cls(backbone(), **given)
        assert isinstance(learner, cls)
        torch.manual_seed(1)
        one = trainer(default_root_dir=tmp_path)
        one.fit(copy.deepcopy(learner) if given == {} else learner, benchmark())
        learner = one.lightning_module
        assert type(learner) is cls
        weights.append(learner.state_dict())
        if given == {}:  # a checkpoint holds what the benchmark said
            path = tmp_path / "last.ckpt"
            one.save_checkpoint(path)
            loaded = cls.load_from_checkpoint(path)
            assert loaded.task == learner.task
            assert loaded.init_args.keys() == learner.init_args.keys()
    if cls is PrototypicalNetwork:  # the others draw a layer for the task, later than else
        for name, value in weights[0].items():
            assert torch.equal(value, weights[1][name]), name
    assert weights[0].keys() == weights[1].keys()


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_what_trains_nothing_asks_too(run: str) -> None:
    learner: Any = MAML(backbone())
    getattr(trainer(), run)(learner, benchmark())
    assert learner.task.way == 3


@pytest.mark.parametrize(
    "use",
    [
        lambda learner: learner.adapt(None),
        lambda learner: learner.task,
        lambda learner: learner.backbone,
        lambda learner: torch.optim.SGD(learner.parameters(), 0.1),
        lambda learner: learner.state_dict(),
        lambda learner: learner.load_state_dict({}),
    ],
)
def test_what_must_know_before_is_refused(use: Callable[[Any], Any]) -> None:
    with pytest.raises(
        FewshotError,
        match=r"^MAML was given no task and takes it from the DataModule that it is trained or"
        r" tested with; for \w+ before, pass MAML\(\.\.\., task=data\.task\)$",
    ):
        use(MAML(backbone()))
    assert not hasattr(MAML(backbone()), "task")


def test_one_that_needs_nothing_else_waits_too_and_its_copies_do_not() -> None:
    learner: Any = ThompsonSampling()
    trainer().test(learner, BanditDataModule(test_episodes=3), verbose=False)
    assert type(learner) is ThompsonSampling
    made = ThompsonSampling(task=BanditDataModule().task)
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(copied) is ThompsonSampling
        assert copied.init_args == made.init_args
        assert copied.task == made.task


def test_without_a_datamodule_it_is_refused() -> None:
    loader = benchmark().train_dataloader
    with pytest.raises(
        FewshotError,
        match=r"^MAML needs the argument task, but there is no DataModule; pass task=\.\.\.$",
    ):
        trainer().fit(MAML(backbone()), [loader])


def test_a_fact_that_the_benchmark_lacks_is_named() -> None:
    class Other(L.LightningDataModule):
        task = benchmark().task

    with pytest.raises(
        FewshotError,
        match=r"^FineTune needs the argument train_classes, but Other does not state it; pass"
        r" train_classes=\.\.\.$",
    ):
        trainer().test(FineTune(backbone()), Other())


def test_other_arguments_are_checked_at_once() -> None:
    with pytest.raises(FewshotError, match=r"^MAML has no argument 'inner_lrr'; did you mean"):
        MAML(backbone(), inner_lrr=1.0)  # type: ignore[call-arg]
    with pytest.raises(FewshotError, match=r"^inner_lr is -1"):
        MAML(backbone(), inner_lr=-1.0)
    with pytest.raises(FewshotError, match=r"^MAML needs the argument backbone, task; pass"):
        MAML(inner_lr=1.0)  # type: ignore[call-arg]


def test_a_benchmark_of_another_kind_is_refused_as_ever() -> None:
    data = SinusoidDataModule(train_episodes=4, val_episodes=2, test_episodes=2)
    with pytest.raises(FewshotError, match=r"^PrototypicalNetwork is made for classification"):
        trainer().fit(PrototypicalNetwork(MLP(1)), data)


def test_a_command_line_finds_one_class_of_its_name() -> None:
    assert type(MAML(MLP(1))) is not MAML  # one that waits is of a class of its own
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(MetaLearner, "model")
    backbone = {"class_path": "MLP", "init_args": {"in_features": 1}}
    arguments = {"backbone": backbone, "task": {"kind": "regression"}}
    parsed = parser.parse_object({"model": {"class_path": "MAML", "init_args": arguments}})
    assert parsed.model.class_path == "fewshot.MAML"
