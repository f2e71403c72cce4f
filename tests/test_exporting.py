"""Exported programs give what the learner gives, to 1e-5, by torch.export and by onnxruntime."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewshot
from fewshot import Conv4, FewshotError
from fewshot.cli.export import export
from fewshot.cli.main import main
from fewshot.deployment.export import AdaptedClassifier, Embedding, save_program, to_program
from fewshot.deployment.predictor import TrainedLearner
from fewshot.episodes.types import Inputs

Photos = tuple[Path, Path]


def by_program(path: Path, inputs: Inputs) -> torch.Tensor:
    outputs = torch.export.load(path).module()(inputs)
    assert isinstance(outputs, torch.Tensor)
    return outputs


def by_onnx(path: Path, inputs: Inputs) -> torch.Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tensors: dict[str, Any] = inputs if isinstance(inputs, dict) else {"images": inputs}
    names = {one.name for one in session.get_inputs()}
    (outputs,) = session.run(
        None, {name: value.numpy() for name, value in tensors.items() if name in names}
    )
    assert isinstance(outputs, np.ndarray)
    return torch.from_numpy(outputs)


@pytest.mark.parametrize("number", [1, 7])
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_classifier_by_the_command(
    kind: str,
    number: int,
    photos: Photos,
    exported: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    stem = exported[kind]
    facts = json.loads(stem.with_suffix(".json").read_text())
    checkpoint = photos[1] if kind == "images" else request.getfixturevalue("texts")
    learner = fewshot.load(checkpoint, "cpu")
    assert facts["preprocessing"]["kind"] == kind[:-1]
    assert (
        fewshot.load(checkpoint, "cpu", preprocessing=facts["preprocessing"]).reader.facts()
        == learner.reader.facts()
    )
    inputs = learner.reader.example(number)
    expected = learner.adapt(exported[f"{kind} support"])(inputs)
    assert facts["classes"] == list(expected.classes)
    for found in (
        by_program(stem.with_suffix(".pt2"), inputs),
        by_onnx(stem.with_suffix(".onnx"), inputs),
    ):
        assert (found - expected.probabilities).abs().max() < 1e-5


@pytest.fixture(scope="module")
def exported(
    photos: Photos, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The exported classifiers of images and of texts, and their supports."""
    pytest.importorskip("onnxscript")
    root = tmp_path_factory.mktemp("exported")
    (root / "support").mkdir()
    for name, lines in {"b": "please a intent_140\nplease b", "a": "now now\n"}.items():
        (root / f"support/{name}.txt").write_text(lines)
    supports = {"images": photos[0] / "test", "texts": root / "support"}
    for kind, checkpoint in (("images", photos[1]), ("texts", texts)):
        output = f"--output={root / kind}"
        assert (
            main(["export", f"--ckpt_path={checkpoint}", f"--support={supports[kind]}", output])
            == 0
        )
    return {kind: root / kind for kind in supports} | {
        f"{kind} support": path for kind, path in supports.items()
    }


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_an_embedding_by_the_command(format: str, photos: Photos, tmp_path: Path) -> None:
    stem = tmp_path / "photos.v1"  # a suffix is added, none taken off
    export([f"--ckpt_path={photos[1]}", f"--output={stem}", f"--format={format}"])
    assert {path.name for path in tmp_path.iterdir()} == {f"photos.v1.{format}", "photos.v1.json"}
    learner = fewshot.load(photos[1], "cpu").module
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = learner.backbone.eval()(images)
    run = by_program if format == "pt2" else by_onnx
    assert (run(tmp_path / f"photos.v1.{format}", images) - expected).abs().max() < 1e-5


SLOW = (
    "ProtoMAML",
    "CAVIA",
    "RelationNetwork",
    "RFS",
    "FineTune",
    "SNAIL",
    "BaselinePlusPlus",
    "R2D2",
    "ANIL",
    "MetaSGD",
)
KINDS = ["MAML", "RFS", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", KINDS)
def test_adapted_classifiers_of_every_kind(name: str, tmp_path: Path) -> None:
    own: dict[str, dict[str, Any]] = {"SNAIL": {"shot": 1}, "CAVIA": {"film_after": "blocks.1.2"}}
    asked = own.get(name, {})
    asked |= {"train_classes": 3} if name in ("FineTune", "RFS", "BaselinePlusPlus") else {}
    asked |= {"full_context": True} if name == "MatchingNetwork" else {}
    torch.manual_seed(0)
    learner = getattr(fewshot, name)(
        Conv4(1, 16, width=4), task={"kind": "classification", "way": 2}, **asked
    )
    support = {"a": torch.rand(1, 1, 16, 16), "b": torch.rand(1, 1, 16, 16)}
    predictor = TrainedLearner(learner.eval()).adapt(support)
    module = AdaptedClassifier(predictor)
    program = to_program(module, torch.rand(2, 1, 16, 16))
    save_program(program, tmp_path / "one.pt2", module, torch.rand(5, 1, 16, 16))
    images = torch.rand(1, 1, 16, 16)
    assert (
        by_program(tmp_path / "one.pt2", images) - predictor(images).probabilities
    ).abs().max() < 1e-5


def test_an_embedding_that_looks_at_the_batch_is_refused() -> None:
    learner = fewshot.MAML(Conv4(1, 16, width=4), task={"kind": "classification", "way": 2})
    with pytest.raises(
        FewshotError,
        match=r"MAML has batch normalisation without running averages.* give --support",
    ):
        Embedding(learner)


def test_a_wrong_program_is_not_kept(tmp_path: Path) -> None:
    learner = fewshot.PrototypicalNetwork(
        Conv4(1, 16, width=4), task={"kind": "classification", "way": 2}
    ).eval()
    program = to_program(Embedding(learner), torch.rand(2, 1, 16, 16))
    with torch.no_grad():
        next(learner.parameters()).add_(1)
    module = Embedding(learner)  # what the program is not
    with pytest.raises(
        FewshotError, match=r"one\.pt2 would give other outputs than the learner.* not written"
    ):
        save_program(program, tmp_path / "one.pt2", module, torch.rand(5, 1, 16, 16))
    assert list(tmp_path.iterdir()) == []


def test_a_learner_that_cannot_be_exported_says_so() -> None:
    learner = fewshot.MANN(Conv4(1, 16, width=4), task={"kind": "classification", "way": 2}).eval()
    predictor = TrainedLearner(learner).adapt(
        {"a": torch.rand(1, 1, 16, 16), "b": torch.rand(1, 1, 16, 16)}
    )
    with pytest.raises(FewshotError, match="cannot be exported for any number of inputs"):
        to_program(AdaptedClassifier(predictor), torch.rand(2, 1, 16, 16))


def test_a_network_that_cannot_be_traced() -> None:
    class Branching(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs if inputs.sum() > 0 else -inputs

    with pytest.raises(
        FewshotError, match="the network cannot be exported for any number of inputs"
    ):
        to_program(Branching(), torch.rand(2, 3))


def test_what_is_missing_is_said_before_anything_is_written(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", f"--ckpt_path={photos[1]}", f"--output={tmp_path / 'x'}"]) == 2
    assert (
        "onnxscript is not installed; pip install 'fewshot-lightning[export]'"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("adapted", [False, True])
def test_a_policy_by_the_command(
    adapted: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("gymnasium")
    sizes: dict[str, Any] = {
        "train_episodes": 2,
        "meta_batch_size": 2,
        "val_episodes": 2,
        "shot": 2,
    }
    data = fewshot.GymnasiumDataModule("CartPole-v1", {}, horizon=5, **sizes)
    trainer = fewshot.Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", logger=False
    )
    torch.manual_seed(0)
    trainer.fit(fewshot.MAML(fewshot.MLP(4, (5,)), task=data.task, inner_lr=1.0), data)
    trainer.save_checkpoint(tmp_path / "cart.ckpt")
    common = [f"--ckpt_path={tmp_path / 'cart.ckpt'}", f"--output={tmp_path / 'policy'}"]
    export([*common, *(["--env=CartPole-v1"] if adapted else [])])
    facts = json.loads((tmp_path / "policy.json").read_text())
    assert facts["adapted_to"] == ("CartPole-v1" if adapted else None)
    assert facts["output"] == "logits (n, 2)"
    learner = fewshot.load(tmp_path / "cart.ckpt", "cpu")
    observations = torch.randn(7, 4)
    with torch.no_grad():
        wanted = learner.module.network(observations)  # type: ignore[operator]
        if adapted:
            import gymnasium

            policy = learner.adapt(gymnasium.make("CartPole-v1"))
            before, wanted = wanted, learner.module.predict(policy.adapted, observations)
            assert (wanted - before).abs().max() > 1e-3
    assert (by_program(tmp_path / "policy.pt2", observations) - wanted).abs().max() < 1e-5
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(tmp_path / "policy.onnx"))
    (outputs,) = session.run(None, {"observations": observations.numpy()})
    assert (torch.from_numpy(outputs) - wanted).abs().max() < 1e-5
    with pytest.raises(FewshotError, match="--support is of learners that classify, and this MAML"):
        export([*common, "--support=x"])


def test_an_environment_is_for_learners_that_act(photos: Photos, tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="--env is of learners that act, and this Proto"):
        export([f"--ckpt_path={photos[1]}", "--env=CartPole-v1", f"--output={tmp_path / 'x'}"])
