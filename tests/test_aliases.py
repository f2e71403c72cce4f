"""Other names: commands, learners and benchmarks as people call them."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from commands import fit

from fewshot.cli.aliases import KINDS, by_meaning, canonical, meant, names, plain
from fewshot.cli.main import main
from fewshot.cli.short_names import replaced


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("train --model ProtoNet --data Glyphs", "fit --model PrototypicalNetwork --data {}Glyphs"),
        ("fit --model=CAML --data=omniglot", "fit --model=CAVIA --data={}Omniglot"),
        ("test --model MAML++ --model.inner_lr 1", "test --model MAMLPlusPlus --model.inner_lr 1"),
        ("fit --model.help meta-sgd", "fit --model.help MetaSGD"),
        (
            "fit --model proto_maml --data.help mini_imagenet",
            "fit --model ProtoMAML --data.help {}MiniImageNet",
        ),
        ("fit --model.backbone conv4", "fit --model.backbone Conv4"),
        ("fit --model.backbone resnet18", "fit --model.backbone resnet18"),  # a short name
        ('fit --model my.maml --data {"a":1}', 'fit --model my.maml --data {"a":1}'),
        (
            "fit --model.weights maml --trainer.logger maml",
            "fit --model.weights maml --trainer.logger maml",
        ),
        ("fit --model nothing", "fit --model nothing"),
        ("EVAL --model", "test --model"),
    ],
)
def test_a_command_line(given: str, wanted: str) -> None:
    found = canonical(given.split())
    for name in ("Glyphs", "Omniglot", "MiniImageNet"):
        wanted = wanted.replace(f"{{}}{name}", f"{name}DataModule")
    assert found == wanted.split()


def test_no_name_means_two_classes() -> None:
    for entries in KINDS.values():
        called = [{plain(n) for n in (*names(entry), entry.name)} for entry in entries()]
        counted = Counter(name for each in called for name in each)
        assert [name for name, times in counted.items() if times > 1] == []
        assert all(meant(kind, e.name) == e.name for kind in KINDS for e in KINDS[kind]())


def test_a_config() -> None:
    config = {
        "model": {"class_path": "ProtoNet", "init_args": {"backbone": "conv4"}},
        "data": "Glyphs",
    }
    assert replaced(config) == {
        "model": {"class_path": "PrototypicalNetwork", "init_args": {"backbone": "Conv4"}},
        "data": "GlyphsDataModule",
    }


def test_a_run_by_other_names(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    content = {
        "model": {"class_path": "maml", "init_args": {"backbone": "mlp"}},
        "data": "sinusoid",
    }
    config.write_text(yaml.safe_dump(content))
    args = (f"--config={config}", "--trainer.max_steps=1", "--data.meta_batch_size=4")
    run = fit(tmp_path, *args, "--test_after_fit=false")
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["model"]["class_path"] == "fewshot.MAML"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--data.help glyhps", "'glyhps' is no known class; did you mean 'GlyphsDataModule'?"),
        ("--model.help protonett", "did you mean 'PrototypicalNetwork'?"),
        ("--model.help attention", "what it may mean: "),
        ("--model.backbone.help resnet19", "did you mean 'resnet18'?"),
        ("--data.help zzzz", "choose from BanditDataModule, "),
    ],
)
def test_help_of_a_name_that_is_none(
    args: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *args.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_of_a_short_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.backbone.help", "resnet18"])
    assert not stop.value.code
    told = capsys.readouterr().out
    assert told.startswith("Help for --model.backbone TorchvisionBackbone, which resnet18 stands")
    assert "--model.backbone.weights  " in told


def test_what_a_word_may_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert "RFS" in by_meaning("model", "logistic")
    assert main(["fit", "--model", "attention", "--data", "Glyphs"]) == 2
    error = capsys.readouterr().err
    assert "'attention' is no known class; what it may mean: " in error
    assert "MatchingNetwork" in error
