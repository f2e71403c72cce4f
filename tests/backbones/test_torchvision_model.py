"""Every family of torchvision's classification networks as a backbone.

Weights are made here, none are fetched.
"""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from commands import fewshot, fit, results
from torch import Tensor, nn
from torchvision import models

from fewshot.backbones import TorchvisionBackbone
from fewshot.engine.modes import How
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.hyperparameters import without_weights
from fewshot.learners import MAML, PrototypicalNetwork

TASK = {"kind": "classification", "way": 2}
FAMILIES = {  # the features that each network's own paper has before its classifier
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_x_400mf": 400,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "swin_v2_t": 768,
    "vgg11": 4096,
    "vit_b_32": 768,
    "wide_resnet50_2": 2048,
}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Weights come from here instead of the network: random ones of the right shapes.

    The names of those asked for.
    """
    asked: list[str] = []

    def make(weights: models.WeightsEnum, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        asked.append(str(weights))
        model = str(weights).partition("_Weights")[0].lower()
        implied = {"image_size": weights.meta["min_size"][0]} if model.startswith("vit") else {}
        implied |= {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
        state = models.get_model(model, weights=None, **implied).state_dict()
        return {
            name: 0.02 * torch.randn_like(value) if value.dim() > 1 else value
            for name, value in state.items()
        }

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", make)
    return asked


def test_every_family_is_here() -> None:
    def family(name: str) -> Any:
        return type(models.get_model_builder(name)), models.get_model_builder(name).__module__

    assert {family(name) for name in models.list_models(module=models)} == {
        family(name) for name in FAMILIES
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_features_come_out_and_gradients_go_through(name: str) -> None:
    network = TorchvisionBackbone(3, 32, name)
    assert network.out_features == FAMILIES[name]
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    features = network(images)  # in training, where some have auxiliary classifiers
    assert features.shape == (2, network.out_features)
    features.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    # nothing of the classifier is left, that a distributed run would wait for
    assert not [n for n, p in network.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "squeezenet1_1", "vit_b_32", "swin_t", "googlenet"]
)
def test_the_features_are_what_the_classifier_reads(name: str) -> None:
    backbone = TorchvisionBackbone(3, 224, name).eval()
    extra = {"init_weights": True} if name == "googlenet" else {}
    whole = models.get_model(name, **extra).eval()
    whole.load_state_dict(backbone.network.state_dict(), strict=False)
    last = [m for m in whole.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    seen: list[Tensor] = []
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        whole(images)
        # SqueezeNet averages behind it
        expected = seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0]
        torch.testing.assert_close(backbone(images), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- the images


def sees(backbone: TorchvisionBackbone, images: Tensor) -> Tensor:
    """What torchvision's network gets of `images`."""
    seen: list[Tensor] = []
    backbone.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        backbone.eval()(images)
    return seen[0]


def test_untrained_networks_see_the_images_as_they_are() -> None:
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(sees(TorchvisionBackbone(3, 20, "resnet18"), images), images)
    grey = torch.rand(2, 1, 20, 20)
    assert torch.equal(
        sees(TorchvisionBackbone(1, 20, "resnet18"), grey), grey.expand(2, 3, 20, 20)
    )


@pytest.mark.parametrize(
    ("name", "size", "resize", "side"),
    [
        ("alexnet", 28, None, 63),
        ("alexnet", 84, None, 84),
        ("alexnet", 84, 70, 70),
        ("resnet18", 28, 56, 56),
        ("vit_b_32", 28, None, 224),
        ("vit_b_32", 300, None, 224),
        ("vit_b_32", 28, 224, 224),
    ],
)
def test_images_are_resized_to_what_is_asked_for_or_what_the_network_takes(
    name: str, size: int, resize: int | None, side: int
) -> None:
    images = torch.rand(1, 3, size, size)
    expected = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    found = sees(TorchvisionBackbone(3, size, name, resize=resize), images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_pretrained_networks_see_what_they_were_trained_on(fetched: list[str]) -> None:
    images = torch.rand(2, 1, 28, 28)
    preset = models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    large = F.interpolate(images, (224, 224), mode="bilinear").expand(2, 3, -1, -1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    expected = (large - mean) / std
    backbone = TorchvisionBackbone(1, 28, "resnet18", "DEFAULT")
    torch.testing.assert_close(sees(backbone, images), expected, rtol=1e-5, atol=1e-5)
    backbone = TorchvisionBackbone(1, 28, "resnet18", "IMAGENET1K_V1", resize=28)
    torch.testing.assert_close(sees(backbone, images), (images.expand(2, 3, -1, -1) - mean) / std)
    assert fetched == ["ResNet18_Weights.IMAGENET1K_V1"] * 2
    with without_weights():
        cubic = TorchvisionBackbone(1, 28, "efficientnet_b0", "DEFAULT")
        asked = TorchvisionBackbone(1, 28, "efficientnet_b0", "DEFAULT", interpolation="bilinear")
    large = F.interpolate(images, (224, 224), mode="bicubic").clamp(0, 1).expand(2, 3, -1, -1)
    torch.testing.assert_close(sees(cubic, images), (large - mean) / std, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(sees(asked, images), sees(cubic, images))


# ---------------------------------------------------------------- weights and checkpoints


@pytest.mark.parametrize(
    "name", ["densenet121", "googlenet", "inception_v3", "mobilenet_v3_small", "vit_b_16"]
)
def test_a_rebuilt_network_is_the_same_without_its_weights(name: str, fetched: list[str]) -> None:
    for weights in models.get_model_weights(name).__members__:
        if weights == "DEFAULT":
            continue
        fetched.clear()
        with torch.device("meta"):  # no values, only shapes: some are large
            one = TorchvisionBackbone(3, 32, name, weights)
            assert len(fetched) == 1
            with without_weights():
                two = TorchvisionBackbone(3, 32, name, weights)
        assert len(fetched) == 1, "fetched again"
        assert one.side == two.side
        assert plain_values(one.network) == plain_values(two.network)
        shapes, same = (
            {n: v.shape for n, v in network.state_dict().items()} for network in (one, two)
        )
        assert shapes == same


def plain_values(network: nn.Module) -> list[dict[str, Any]]:
    """What the modules of a network hold beside tensors and modules.

    It tells, too, how they compute.
    """
    kinds = (bool, int, float, str, tuple)
    return [
        {k: v for k, v in vars(module).items() if isinstance(v, kinds)}
        for module in network.modules()
    ]


def learner_file(folder: Path, weights: str | None) -> tuple[PrototypicalNetwork, Path]:
    learner = PrototypicalNetwork(
        TorchvisionBackbone(3, 16, "resnet18", weights, resize=16), task=TASK
    )
    trainer = L.Trainer(
        default_root_dir=folder, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(folder / "learner.ckpt")
    return learner, folder / "learner.ckpt"


def test_a_checkpoint_is_loaded_without_fetching_weights(
    tmp_path: Path, fetched: list[str]
) -> None:
    learner, file = learner_file(tmp_path, "DEFAULT")
    assert len(fetched) == 1
    loaded = PrototypicalNetwork.load_from_checkpoint(file)
    assert len(fetched) == 1
    # where it comes from stays known
    assert loaded.hparams["backbone"]["init_args"]["weights"] == "DEFAULT"
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded.backbone.eval()(images), learner.backbone.eval()(images))
    TorchvisionBackbone(3, 16, "resnet18", "DEFAULT", resize=16)
    assert len(fetched) == 2, "the next network has its weights again"


def test_the_command_line_fetches_weights_for_training_and_none_for_a_checkpoint(
    tmp_path: Path, fetched: list[str]
) -> None:
    backbone = ("--model.backbone=TorchvisionBackbone", "--model.backbone.model=shufflenet_v2_x0_5")
    options = (
        "--model=PrototypicalNetwork",
        *backbone,
        "--model.backbone.weights=DEFAULT",
        "--data=GlyphsDataModule",
    )
    few = ("--model.backbone.resize=28", "--data.queries=2")
    run = fit(tmp_path / "fit", *options, *few, "--trainer.max_steps=1", "--trainer.max_epochs=1")
    assert len(fetched) == 1
    checkpoint = run / "checkpoints/last.ckpt"
    again = fewshot("test", tmp_path / "test", *options, *few, f"--ckpt_path={checkpoint}")
    assert len(fetched) == 1
    assert results(again)["metrics"] == results(run)["metrics"]
    assert "DEFAULT" in json.dumps(torch.load(checkpoint, weights_only=True)["hyper_parameters"])


def test_null_on_the_command_line_means_no_weights(tmp_path: Path, fetched: list[str]) -> None:
    config = tmp_path / "config.yaml"
    backbone = (
        "{class_path: TorchvisionBackbone, init_args: {model: shufflenet_v2_x0_5, weights:"
        " DEFAULT}}"
    )
    config.write_text(
        f"model: {{class_path: PrototypicalNetwork, init_args: {{backbone: {backbone}}}}}\n"
    )
    options = ("--model.backbone.weights=null", "--data=GlyphsDataModule", "--data.queries=2")
    fewshot("test", tmp_path, f"--config={config}", *options)
    assert not fetched


# ---------------------------------------------------------------- second-order adaptation


@pytest.mark.parametrize(("name", "size"), [("shufflenet_v2_x0_5", 16), ("squeezenet1_1", 40)])
def test_the_loop_and_vmap_give_the_same_meta_gradient(name: str, size: int) -> None:
    learner = MAML(
        TorchvisionBackbone(1, size, name, resize=32),
        task=TASK,
        inner_steps=1,
        inner_lr=0.01,
        episode_parallel="loop",
    ).double()
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    # few images alone would be divided by a variance of nearly nothing
    labels = torch.arange(2).repeat(2, 6)
    batch = Episode(
        *(Examples(torch.rand(2, 12, 1, size, size, dtype=torch.float64), labels) for _ in range(2))
    )

    def gradient(how: How) -> Tensor:
        learner.episode_parallel = how
        learner.zero_grad()
        for outcome in learner.run(batch, training=True):
            torch.autograd.backward(outcome.loss.sum())
        return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])

    one, two = gradient("loop"), gradient("vmap")
    assert one.abs().max() > 0
    torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-9 * one.abs().max().item())


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "resnet19"},
            r"torchvision has no classification network 'resnet19'; did you mean 'resnet18'\?",
        ),
        (
            {"model": "fcn_resnet50"},
            r"torchvision has no classification network 'fcn_resnet50'; did you mean",
        ),
        (
            {"weights": "IMAGENET1K_V2"},
            r"resnet18 has no weights 'IMAGENET1K_V2'; did you mean 'IMAGENET1K_V1'\?",
        ),
        ({"weights": "default"}, r"resnet18 has no weights 'default'; did you mean 'DEFAULT'\?"),
        (
            {"in_channels": 2},
            r"in_channels is 2; TorchvisionBackbone takes images of 1 or 3 channels",
        ),
        ({"model": "alexnet", "resize": 32}, "resize is 32; alexnet needs 63 px or more"),
        ({"resize": 0}, "resize is 0; set resize >= 1 or leave it out"),
        (
            {"model": "vit_b_32", "resize": 96},
            "resize is 96, but vit_b_32 takes 224 px alone; leave resize out",
        ),
    ],
)
def test_wrong_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=f"^{message}"):
        TorchvisionBackbone(**{"in_channels": 3, **arguments})


def test_other_images_are_an_error() -> None:
    with pytest.raises(
        FewshotError, match=r"built for images \(3, 32, 32\), the benchmark gives \(3, 28, 28\)"
    ):
        TorchvisionBackbone(3, 32)(torch.rand(1, 3, 28, 28))


def no_network(*args: Any, **kwargs: Any) -> Any:
    raise urllib.error.URLError("no route to host")


def other_bytes(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError('invalid hash value (expected "f37072fd", got "e3b0c442")')


@pytest.mark.parametrize("failure", [no_network, other_bytes])
def test_weights_that_cannot_be_fetched_are_an_error(
    failure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", failure)
    file = "resnet18-f37072fd.pth"
    with pytest.raises(
        FewshotError, match=rf"^the weights of resnet18 cannot be fetched \(.*\); put .*/{file}"
    ) as error:
        TorchvisionBackbone(3, 28, "resnet18", "DEFAULT")
    assert f"into {tmp_path}/hub/checkpoints/{file} yourself, or set weights: null" in str(
        error.value
    )
