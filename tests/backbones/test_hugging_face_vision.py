"""Image transformers of the transformers library: tiny random ones of each kind, in folders."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from commands import fewshot, fit, results
from torch import Tensor

from fewshot.backbones import HuggingFaceVision
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import without_weights
from fewshot.learners import MAML, PrototypicalNetwork

TASK = {"kind": "classification", "way": 2}
KINDS = ("dinov2", "dinov3", "clip", "siglip", "vit")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    remedy = r"^transformers is not installed; pip install 'fewshot-lightning\[pretrained\]'$"
    with pytest.raises(FewshotError, match=remedy):
        HuggingFaceVision(3, 32)


def config(kind: str) -> Any:
    """The config of a tiny network, which reads 28 pixels in patches of 14."""
    transformers = require("transformers", "pretrained")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 28, "patch_size": 14, "intermediate_size": 12}
    words = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**sizes, "intermediate_size": 12, "vocab_size": 20, **words}
    if kind == "dinov2":
        return transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    if kind == "clip":
        return transformers.CLIPConfig(vision_config=vision, text_config=text)
    if kind == "siglip":
        return transformers.SiglipConfig(vision_config=vision, text_config=text)
    made = transformers.DINOv3ViTConfig if kind == "dinov3" else transformers.ViTConfig
    return made(**vision)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    transformers = pytest.importorskip(
        "transformers", reason="needs the extra fewshot-lightning[pretrained]"
    )
    torch.manual_seed(0)
    made = {kind: tmp_path_factory.mktemp("models") / kind for kind in KINDS}
    for kind, folder in made.items():
        transformers.AutoModel.from_config(config(kind)).save_pretrained(folder)
        sizes = {"do_resize": True, "do_center_crop": True, "crop_size": 28, "size": 32}
        colours = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
        transformers.CLIPImageProcessor(**sizes, **colours).save_pretrained(folder)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_are_the_models_own_of_images_as_it_knows_them(
    kind: str, folders: dict[str, Path]
) -> None:
    network = HuggingFaceVision(1, 20, str(folders[kind])).eval()
    model = require("transformers", "pretrained").AutoModel.from_pretrained(folders[kind]).eval()
    images = torch.rand(3, 1, 20, 20)
    large = F.interpolate(images, (28, 28), mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = getattr(model, "vision_model", model)((large - mean) / std).pooler_output
    features = network(images)
    assert features.shape == (3, network.out_features) == (3, 8)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert features.std() > 0.01
    features.square().sum().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert not [name for name, p in trained.items() if p.grad is None]
    assert not any(name.startswith("text") for name in trained)


def test_images_are_resized_as_the_model_says_or_the_user(folders: dict[str, Path]) -> None:
    images, folder = torch.rand(2, 3, 20, 20), folders["dinov2"]
    own = HuggingFaceVision(3, 20, str(folder)).eval()
    assert own.interpolation == "bicubic"
    asked = HuggingFaceVision(3, 20, str(folder), interpolation="bilinear").eval()
    assert not torch.allclose(own(images), asked(images))
    kept = HuggingFaceVision(**asked.init_args)
    kept.load_state_dict(asked.state_dict())
    torch.testing.assert_close(kept.eval()(images), asked(images))


@pytest.mark.parametrize("kind", KINDS)
def test_images_may_be_resized_to_other_patches(kind: str, folders: dict[str, Path]) -> None:
    network = HuggingFaceVision(3, 28, str(folders[kind]), resize=56).eval()
    seen: list[Tensor] = []
    network.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert network(torch.rand(2, 3, 28, 28)).shape == (2, 8)
    assert seen[0].shape == (2, 3, 56, 56)
    with pytest.raises(FewshotError, match=r"^resize is 50; .* reads patches of 14 px: set 56$"):
        HuggingFaceVision(3, 28, str(folders[kind]), resize=50)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_needs_neither_the_folder_nor_a_network(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(folders[kind], tmp_path / "model")
    learner = PrototypicalNetwork(HuggingFaceVision(3, 20, str(moved), frozen=True), task=TASK)
    trainer = L.Trainer(
        default_root_dir=tmp_path, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "learner.ckpt")
    shutil.rmtree(moved)
    loaded = PrototypicalNetwork.load_from_checkpoint(tmp_path / "learner.ckpt")
    images = torch.rand(2, 3, 20, 20)
    assert not loaded.backbone.training
    assert torch.equal(loaded.backbone(images), learner.backbone(images))


def test_weights_are_not_read_where_a_checkpoint_takes_their_place(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    bare = shutil.copytree(folders["clip"], tmp_path / "model")
    for file in bare.glob("model*"):
        file.unlink()
    with without_weights():
        assert HuggingFaceVision(3, 20, str(bare)).out_features == 8
    with pytest.raises(FewshotError, match=r"^the model '.*' cannot be loaded .*safetensors"):
        HuggingFaceVision(3, 20, str(bare))


def test_it_trains_and_tests_by_the_command_line(folders: dict[str, Path], tmp_path: Path) -> None:
    options = ["--data=GlyphsDataModule", "--data.queries=2", "--model=PrototypicalNetwork"]
    options += ["--model.backbone=dinov2_small", f"--model.backbone.model={folders['dinov2']}"]
    run = fit(tmp_path / "fit", *options)
    checkpoint = f"--ckpt_path={run}/checkpoints/best.ckpt"
    again = fewshot("test", tmp_path / "test", *options, checkpoint)
    assert results(again)["metrics"] == results(run)["metrics"]


# ---------------------------------------------------------------- errors


def test_a_model_that_is_not_there_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    files = "its config.json, preprocessor_config.json and model.safetensors"
    with pytest.raises(
        FewshotError,
        match=rf"^the model '{missing}' cannot be loaded \(.*\); give a folder that holds {files},"
        r" or a name of https://huggingface.co/models$",
    ):
        HuggingFaceVision(3, 32, missing)
    bare = shutil.copytree(folders["vit"], tmp_path / "model")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(
        FewshotError, match=r"^how the model .* put its preprocessor_config.json beside its config"
    ):
        HuggingFaceVision(3, 32, str(bare))


def test_a_model_that_is_none_of_images_is_an_error(folders: dict[str, Path]) -> None:
    bert = require("transformers", "pretrained").BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    values = json.loads(bert.to_json_string(use_diff=False))
    with pytest.raises(FewshotError, match=r"^the model 'any' is no transformer on images; choose"):
        HuggingFaceVision(3, 32, "any", config=values)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_are_computed_again_give_the_same_meta_gradient(
    kind: str, folders: dict[str, Path]
) -> None:
    def trained(again: bool) -> tuple[list[Tensor | None], int]:
        """The meta-gradient of MAML, and how often a layer of the network's last one ran."""
        torch.manual_seed(1)
        network = HuggingFaceVision(3, 28, str(folders[kind]), checkpoint_blocks=again)
        learner = MAML(network, task=TASK, inner_lr=0.1, inner_steps=2).double().train()
        linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-2]
        runs: list[None] = []
        linear.register_forward_pre_hook(lambda *_: runs.append(None))
        parts = (Examples(torch.rand(1, 2, 3, 28, 28).double(), torch.arange(2)[None]),) * 2
        for outcome in learner.run(Episode(*parts), training=True):
            torch.autograd.backward(outcome.loss.sum())
        return [p.grad for p in network.parameters()], len(runs)

    (expected, once), (found, runs) = trained(False), trained(True)
    assert runs > once
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
