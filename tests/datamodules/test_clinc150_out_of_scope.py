"""CLINC150's one task of all intents, with out-of-scope ones: queries, both figures, threshold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import QUIET, results, runs
from fakes import fake_clinc150

from fewshot import CLINC150DataModule, FewshotError
from fewshot.cli.main import main, run
from fewshot.learners.nota import best_threshold

INTENTS = [f"intent{i}x" for i in range(150)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances, some near their intent's, and out-of-scope ones, some near an intent's."""
    root = fake_clinc150(tmp_path_factory.mktemp("clinc150"))
    parts = {
        "train": [[f"word{i} {intent}", intent] for intent in INTENTS for i in range(3)],
        "val": [
            [f"{intent} {'word1' if n % 3 else 'far off'}", intent]
            for n, intent in enumerate(INTENTS)
        ],
        "test": [
            [f"{intent} {'word2' if n % 2 else 'quite far off'}", intent]
            for n, intent in enumerate(INTENTS)
        ],
        "oos_val": [[f"word{i} nothing of this {INTENTS[i]}", "oos"] for i in range(10)],
        "oos_test": [
            [f"word{i % 3} {INTENTS[i] if i < 5 else 'else'} what", "oos"] for i in range(20)
        ],
        "oos_train": [["none", "oos"]],
    }
    (root / "data_full.json").write_text(json.dumps(parts))
    return root


def data(root: Path, **arguments: Any) -> CLINC150DataModule:
    return CLINC150DataModule(
        root=str(root), split="all", way=150, shot=2, out_of_scope=True, **arguments
    )


def test_the_queries_are_all_utterances_and_the_others_have_the_label_n(root: Path) -> None:
    module = data(root)
    assert module.task["nota"] is True
    for loader, none in ((module.val_dataloader(), 10), (module.test_dataloader(), 20)):
        (task,) = loader
        assert task.stacked.support.targets.tolist() == [[n for n in range(150) for _ in range(2)]]
        assert task.stacked.query.targets.tolist() == [[*range(150)] + [150] * none]
    with pytest.raises(
        FewshotError, match="out_of_scope is on and split is seed; set split: all, or nota_rate"
    ):
        CLINC150DataModule(root=str(root), out_of_scope=True)


@pytest.mark.parametrize("criterion", ["accuracy", "balanced"])
def test_the_threshold_comes_from_validation_and_the_two_parts_stand_apart(
    root: Path, tmp_path: Path, criterion: Any
) -> None:
    options = ("--model=PrototypicalNetwork", "--model.backbone=TfIdf", "--model.distance=cosine")
    rule = ("--model.nota=similarity", f"--model.nota_criterion={criterion}")
    task = (
        "--data=CLINC150DataModule",
        f"--data.root={root}",
        "--data.split=all",
        "--data.way=150",
        "--data.shot=2",
    )
    cli = run(
        [
            "test",
            *options,
            *rule,
            *task,
            "--data.out_of_scope=true",
            *QUIET,
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert cli is not None
    (folder,) = runs(tmp_path)
    found = results(folder)
    outputs = {}
    for stage, loader in (
        ("val", cli.datamodule.val_dataloader()),
        ("test", cli.datamodule.test_dataloader()),
    ):
        (task_,) = loader
        outcome = cli.model.evaluate(cli.datamodule.on_before_batch_transfer(task_, 0).stacked)
        outputs[stage] = outcome.outputs[0, :, :-1], task_.stacked.query.targets[0]
    logits, targets = outputs["val"]
    threshold = best_threshold(
        logits.amax(1), logits.argmax(1) == targets, targets == 150, criterion
    )
    assert found["threshold"] == pytest.approx(threshold)
    logits, targets = outputs["test"]
    answers = torch.where(logits.amax(1) < threshold, 150, logits.argmax(1))
    right, none = answers == targets, targets == 150
    means = {name: value["mean"] for name, value in found["metrics"].items() if name != "loss"}
    assert means == pytest.approx(
        {
            "accuracy": float(right.float().mean()),
            "accuracy_in_scope": float(right[~none].float().mean()),
            "recall_none": float(right[none].float().mean()),
        }
    )
    assert 0 < means["accuracy"] < 1
    assert means["recall_none"] != means["accuracy_in_scope"]
    assert found["out_of_scope"] is True
    of_none = found["by_class"].pop("none of the above")
    assert of_none["accuracy"] == pytest.approx(means["recall_none"])
    assert (of_none["queries"], of_none["ci95"]) == (20, None)  # one episode
    accuracies = [of["accuracy"] for of in found["by_class"].values()]
    assert sum(accuracies) / 150 == pytest.approx(means["accuracy_in_scope"])
    assert set(found["by_class"]) == set(INTENTS)


def test_a_learner_that_cannot_tell_is_refused_in_a_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = (
        "--data=CLINC150DataModule",
        f"--data.root={root}",
        "--data.split=all",
        "--data.way=150",
    )
    assert (
        main(
            [
                "test",
                "--model=SNAIL",
                "--model.backbone=BagOfWords",
                "--data.shot=2",
                *task,
                "--data.out_of_scope=true",
            ]
        )
        == 2
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "SNAIL cannot say that a query is of none of the classes" in lines[0]
