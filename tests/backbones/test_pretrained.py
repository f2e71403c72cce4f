"""What backbones with published weights share: frozen ones stand still; images; short names."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import fewshot, fit, results
from fakes import fake_language_model
from torch import Tensor, nn
from torchvision import models

from fewshot.backbones import (
    HuggingFaceEncoder,
    HuggingFaceVision,
    SentenceEncoder,
    TimmBackbone,
    TorchvisionBackbone,
)
from fewshot.backbones.pretrained import PretrainedBackbone, PretrainedVision
from fewshot.cli.catalogue import networks
from fewshot.cli.main import main
from fewshot.cli.named import named_classes
from fewshot.cli.short_names import expanded, replaced, short_names
from fewshot.deployment.export import Embedding, save_onnx, save_program, to_program
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, ExampleBatch, Examples
from fewshot.hyperparameters import constructor_arguments
from fewshot.learners import RFS, Baseline, FineTune, PrototypicalNetwork, SimpleShot
from fewshot.learners.features_held import FeaturesHeld

TASK = {"kind": "classification", "way": 2}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "cls",
    [TorchvisionBackbone, TimmBackbone, HuggingFaceVision, HuggingFaceEncoder, SentenceEncoder],
)
def test_training_goes_on_with_the_published_weights_that_it_began_with_alone(
    cls: type[PretrainedBackbone],
) -> None:
    # `fewshot.learners.settings` compares what stands here
    arguments = inspect.signature(cls).parameters
    assert list(cls.begins_at) == ["weights" if "weights" in arguments else "model"]


def test_images_on_a_cpu_are_seen_in_channels_last_and_alike() -> None:
    network = frozen_network()
    seen: list[Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.rand(3, 1, 16, 16)
    features = network(images)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()
    torch.testing.assert_close(network.network(seen[0].contiguous()), features)


def frozen_network() -> TorchvisionBackbone:
    """A frozen network with batch normalisation and dropout, its averages not those of a batch."""
    network = TorchvisionBackbone(1, 16, "mobilenet_v2", resize=32)
    assert any(isinstance(module, nn.Dropout) for module in network.modules())
    network(torch.rand(8, 1, 16, 16))
    network.freeze()
    return network


def episodes(count: int = 3) -> Episode:
    labels = torch.arange(2).repeat(count, 4)
    return Episode(*(Examples(torch.rand(count, 8, 1, 16, 16), labels) for _ in range(2)))


def test_images_on_a_cpu_are_read_a_few_at_once_by_the_network_s_side_not_their_own() -> None:
    network = TorchvisionBackbone(1, 16, "mobilenet_v2", resize=224)
    network.freeze()
    seen: list[int] = []
    network.network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    learner = PrototypicalNetwork(network, task={"kind": "classification", "way": 2})
    learner.embed_in_chunks(torch.rand(9, 1, 16, 16))
    assert seen == [4, 4, 1]
    seen.clear()
    images = torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        FeaturesHeld(network, 2**20).features(network, images)
    assert set(seen) == {2, 4}, "a trial, and batches that are filled up"


# ---------------------------------------------------------------- frozen


def test_a_frozen_network_is_a_function_of_one_example() -> None:
    network = frozen_network()
    images = torch.rand(6, 1, 16, 16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = torch.cat([network(image[None]) for image in images])
    assert not alone.requires_grad
    network.train()  # whatever mode, and whatever policy of batch normalisation
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)
    with EpisodeNorm(exact_vmap=False):
        torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)
        thawed = TorchvisionBackbone(1, 16, "mobilenet_v2", resize=32)
        thawed.load_state_dict(network.state_dict(), strict=False)
        assert (thawed.eval()(images) - alone).abs().max() > 1e-3, (
            "the policy had no effect to undo"
        )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_asked_of_the_images_still_has_a_gradient() -> None:
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    frozen_network()(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("learner", [PrototypicalNetwork, SimpleShot])
def test_metric_learners_judge_alike_by_either_policy(learner: Any) -> None:
    options = {"transform": "l2"} if learner is SimpleShot else {}
    network, batch = frozen_network(), episodes()
    model = learner(network, task=TASK, **options).eval()

    def judged() -> list[Tensor]:
        found = []
        for policy in ("inductive", "transductive"):
            model.batchnorm = policy
            (outcome,) = model.run(batch, training=False)
            found.append(outcome.outputs)
        return found

    one, two = judged()
    assert not one.requires_grad
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    network.frozen = False
    one, two = judged()
    assert (one - two).abs().max() > 0.01, "the policy had no effect to undo"


@pytest.mark.parametrize("learner", [Baseline, RFS, FineTune])
def test_transfer_learners_train_the_rest_alone(learner: Any) -> None:
    network = frozen_network()
    alone = {"adapt": "head"} if learner is FineTune else {}
    model = learner(network, train_classes=4, task=TASK, **alone)
    if learner is FineTune:
        model.steps = 2
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model.train()
    batch = ExampleBatch(Examples(torch.rand(6, 1, 16, 16), torch.arange(6) % 4))
    (outcome,) = model.training_outcomes(batch)
    outcome.loss.sum().backward()
    with_gradient = [name for name, p in model.named_parameters() if p.grad is not None]
    assert with_gradient
    assert not [name for name in with_gradient if name.startswith("backbone.")]
    assert {id(p) for p in model.configure_optimizers().param_groups[0]["params"]} == {
        id(p) for name, p in model.named_parameters() if name in with_gradient
    }
    support = Examples(torch.rand(4, 1, 16, 16), torch.arange(2).repeat(2))
    assert model.predict(model.adapt(support), torch.rand(3, 1, 16, 16)).shape == (3, 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_command_line_trains_the_rest_alone_and_tests_where_there_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frozen = ["--model.backbone=TorchvisionBackbone", "--model.backbone.frozen=true"]
    frozen += ["--model.backbone.model=shufflenet_v2_x0_5", "--data=GlyphsDataModule"]
    few = ("--data.queries=2", "--data.batch_size=8", "--trainer.max_steps=2")
    run = fit(tmp_path / "fit", "--model=Baseline", *frozen, *few, "--trainer.max_epochs=1")
    checkpoint = run / "checkpoints/last.ckpt"
    held = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["backbone"]["init_args"]
    assert held["frozen"] is True
    averages = torch.load(checkpoint, weights_only=True)["state_dict"]
    tracked = [v for n, v in averages.items() if n.endswith("num_batches_tracked")]
    assert tracked
    assert not any(v.any() for v in tracked), "batch normalisation has learned"
    nothing = ("--model=PrototypicalNetwork", "--trainer.max_epochs=1", "--data.queries=2")
    run = fit(tmp_path, *nothing, *frozen)
    assert results(run)["learner"] == "PrototypicalNetwork"
    said = "PrototypicalNetwork on TorchvisionBackbone has nothing to train: it is tested at once"
    assert said in caplog.messages


@pytest.mark.parametrize("name", ["torchvision", "dinov2"])
def test_how_a_frozen_network_sees_images_is_part_of_what_is_exported(
    name: str, tmp_path: Path
) -> None:
    if name == "torchvision":
        network: PretrainedVision = TorchvisionBackbone(1, 16, "resnet18", resize=33, frozen=True)
    else:
        pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[pretrained]")
        config = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        seen = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
        network = HuggingFaceVision(1, 16, "any", config=config, resize=28, frozen=True, **seen)  # type: ignore[arg-type]
    module = Embedding(PrototypicalNetwork(network, task=TASK))
    program = to_program(module, torch.rand(2, 1, 16, 16))
    save_program(program, tmp_path / "one.pt2", module, torch.rand(5, 1, 16, 16))
    images = torch.rand(3, 1, 16, 16)
    exported = torch.export.load(tmp_path / "one.pt2").module()
    torch.testing.assert_close(exported(images), network(images), rtol=1e-4, atol=1e-5)
    pytest.importorskip("onnxruntime", reason="needs the extra fewshot-lightning[export]")
    save_onnx(program, tmp_path / "one.onnx", module, images)  # it runs it and compares


# ---------------------------------------------------------------- sentence encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    return str(fake_language_model(tmp_path_factory.mktemp("model") / "bert"))


def texts() -> dict[str, Tensor]:
    lengths = torch.tensor([1, 4, 6])
    tokens = torch.randint(5, 40, (3, 6)) * (torch.arange(6) < lengths[:, None])
    return {"tokens": tokens, "lengths": lengths}


def test_a_sentence_is_the_mean_of_its_pieces_of_unit_length(folder: str) -> None:
    network = SentenceEncoder(40, folder, frozen=True)
    mean = HuggingFaceEncoder(40, folder).eval()(texts_ := texts())
    expected = mean / mean.square().sum(-1, keepdim=True).sqrt()
    features = network.train()(texts_)  # no dropout, which the model's config has
    torch.testing.assert_close(features, expected)
    assert not features.requires_grad
    assert (HuggingFaceEncoder(40, folder).train()(texts_) - mean).abs().max() > 1e-3


# ---------------------------------------------------------------- short names


def test_every_short_name_stands_for_arguments_that_its_class_has() -> None:
    declared = {entry.name: entry for entry in networks() if entry.short_names}
    assert {"TorchvisionBackbone", "TimmBackbone", "HuggingFaceVision", "MiniLM"} <= set(declared)
    for name, entry in declared.items():
        assert issubclass(entry.cls, PretrainedBackbone), name
        assert vars(entry.cls)["short_names"] == entry.short_names
        for arguments in entry.short_names.values():
            known = constructor_arguments(entry.cls, (), {})
            assert set(arguments) <= set(known)
    names = [name for entry in declared.values() for name in entry.short_names]
    assert len(names) == len(set(names)), "one name, one thing"
    assert not set(names) & {entry.name for entry in networks()}


def test_a_short_name_is_the_same_on_the_command_line_and_in_a_config(tmp_path: Path) -> None:
    meant = {
        "class_path": "fewshot.TorchvisionBackbone",
        "init_args": {"model": "resnet18", "weights": "DEFAULT"},
    }
    assert short_names()["resnet18"] == meant
    for args in (["--model.backbone=resnet18"], ["--model.backbone", "resnet18"]):
        written = expanded(args)[-1]
        assert yaml.safe_load(written.removeprefix("--model.backbone=")) == meant
    assert replaced({"model": {"init_args": {"backbone": "resnet18"}}}) == {
        "model": {"init_args": {"backbone": meant}}
    }
    changed = replaced({"backbone": {"class_path": "resnet18", "init_args": {"weights": None}}})
    assert changed["backbone"]["init_args"] == {"model": "resnet18", "weights": None}
    for other in ({"backbone": "Conv4"}, {"model": "resnet18"}, {"backbone": {"width": 4}}):
        assert replaced(other) == other
    assert expanded(["--model.backbone=Conv4", "--data.name", "resnet18"])[-1] == "resnet18"
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  class_path: MAML\n  init_args: {backbone: resnet18}\n")
    found = named_classes(["fit", f"--config={config}"])
    assert found["model.init_args.backbone"] is TorchvisionBackbone


@pytest.mark.parametrize("how", ["option", "config"])
def test_a_run_has_the_class_and_the_arguments(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = models.resnet18(num_classes=1000).state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: made)
    own = {"class_path": "resnet18", "init_args": {"resize": 33}}
    config = {"model": {"class_path": "PrototypicalNetwork", "init_args": {"backbone": own}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = {
        "config": [f"--config={tmp_path / 'config.yaml'}", "--model.backbone.frozen=true"],
        "option": [
            *("--model", "PrototypicalNetwork", "--model.backbone", "resnet18"),
            *("--model.backbone.resize=33", "--model.backbone.frozen=true"),
        ],
    }[how]
    run = fewshot("test", tmp_path, *options, "--data=GlyphsDataModule", "--data.queries=2")
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert written["class_path"] == "fewshot.TorchvisionBackbone"
    arguments = {"model": "resnet18", "weights": "DEFAULT", "resize": 33, "frozen": True}
    assert arguments.items() <= written["init_args"].items()
    assert results(run)["learner"] == "PrototypicalNetwork"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("resnet81", "resnet18"), ("dinov2_smal", "dinov2_small"), ("Conv5", "Conv4")],
)
def test_an_unknown_name_is_told_with_the_nearest(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model=PrototypicalNetwork", f"--model.backbone={word}", "--data=GlyphsDataModule"]
    assert main(["test", *args]) == 2
    error = capsys.readouterr().err
    assert f"{word!r} is no known class; did you mean {meant!r}?" in error


def test_short_names_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["list", "backbones"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in short_names())
