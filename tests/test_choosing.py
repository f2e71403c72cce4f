"""Another learner is one changed word: every learner on README's config, a Prototypical Network's."""

import warnings
from pathlib import Path

import pytest
import yaml
from commands import FEW, QUIET, fewshot, fit, results
from jsonargparse import ArgumentParser

from fewshot.cli.catalogue import benchmarks, learners
from fewshot.cli.main import main
from fewshot.hyperparameters import parameter_names

pytestmark = pytest.mark.usefixtures("undrawn")

CONFIG = "--config=glyphs/protonet_5way1shot"
SMALL = ("--model.backbone.width=4", "--data.queries=2", "--trainer.max_steps=1")
KINDS = dict(
    **dict.fromkeys(("ANP", "CNP", "GaussianProcess", "MMAML"), "SinusoidDataModule"),
    **dict.fromkeys(("GMatching", "MetaR", "TransE", "TailFrequency"), "WikiOneDataModule"),
    **dict.fromkeys(
        (
            *("BayesOptimum", "EpsilonGreedy", "GittinsIndex", "PSRL", "RL2", "RandomPolicy"),
            *("ThompsonSampling", "ToldGoal", "UCB1"),
        ),
        "BanditDataModule",
    ),
    **dict.fromkeys(("PET", "FineTuneText"), "FewGLUEDataModule"),
    BERTPair="FewRelDataModule",
    PANet="CamVidDataModule",
)
"""The benchmark that a learner names which another kind of task is for."""
ONE_WAY = (
    *("ADML", "ANIL", "BOIL", "CAVIA", "FOMAML", "IMAML", "MAML", "MAMLPlusPlus", "MANN"),
    *("MRMAML", "MetaSGD", "MultiTask", "Reptile", "SNAIL", "TAML"),
)


@pytest.mark.parametrize("name", [entry.name for entry in learners()])
def test_every_learner_takes_the_config_or_names_the_benchmark_that_it_needs(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = (CONFIG, *SMALL, f"--model={name}")
    if name in KINDS:
        root = f"--trainer.default_root_dir={tmp_path}"
        assert main(["fit", *chosen, *FEW, *QUIET, root]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if name in line]
        assert not [line for line in caplog.messages if name in line]
        assert len(error) == 1
        assert error[0].startswith("fewshot: error: ")
        assert KINDS[name] in error[0]
        assert KINDS[name] in {entry.name for entry in benchmarks()}
        return
    run = fit(tmp_path, *chosen)
    said = caplog.messages
    assert results(run)["learner"] == name
    one_line = f"{name} knows one way: train_way 20 of the config -> 5"
    assert (one_line in said) == (name in ONE_WAY)
    used = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["train_way"]
    assert used == (5 if name in ONE_WAY else 20)
    at_once = f"{name} has nothing to train: it is tested at once"
    assert (at_once in said) == (name == "SimpleShot")


@pytest.mark.parametrize("of_config", [False, True])
def test_what_is_set_for_the_learner_itself_is_not_overridden(
    of_config: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    data = {"class_path": "GlyphsDataModule", "init_args": {"train_way": 20}}
    own.write_text(yaml.safe_dump({"model": "MAML", "data": data}))
    args = [f"--config={own}"] if of_config else [CONFIG, "--data.train_way=20"]
    small = ["--model=MAML", "--model.backbone=Conv4", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *args, *small, *FEW, *QUIET]) == 2
    assert "train_way is 20 and way is 5; set train_way to 5" in capsys.readouterr().err


def test_a_learner_with_nothing_to_train_and_no_test_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [CONFIG, "--model=SimpleShot", "--test_after_fit=false"]
    assert main(["fit", *args, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "SimpleShot has nothing to train, and test_after_fit is false" in capsys.readouterr().err


def test_a_learner_with_nothing_to_train_can_be_tried(tmp_path: Path) -> None:
    tried = ("--model=SimpleShot", "--model.backbone.width=4", "--trainer.fast_dev_run=true")
    fewshot("fit", tmp_path, CONFIG, *tried)


@pytest.mark.parametrize("name", [entry.name for entry in learners()])
def test_the_parser_offers_nothing_that_the_constructor_does_not_take(name: str) -> None:
    cls = next(entry.cls for entry in learners() if entry.name == name)
    parser = ArgumentParser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        offered = parser.add_class_arguments(cls, "it", sub_configs=True)
    names = {key.removeprefix("it.").partition(".")[0] for key in offered}
    assert names - {*parameter_names(cls)} == set()
