"""timm's image networks as feature extractors, pre-trained or not."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.pretrained import (
    KNOWN,
    Interpolation,
    PretrainedVision,
    ShortNames,
    check_trained,
)
from fewshot.datasets.reading.hub import in_cache, kept_alone
from fewshot.engine.normalization import normalises_batches
from fewshot.errors import FewshotError, nearest
from fewshot.extras import require
from fewshot.hyperparameters import weights_follow


class TimmBackbone(PretrainedVision):
    """TimmBackbone: any network of timm, by name, its classifier left out. Paper: none, see each.

    Needs ``pip install 'fewshot-lightning[pretrained]'``. `TorchvisionBackbone` says how images are
    seen; the size and the normalisation of the training go into checkpoints. A checkpoint holds the
    weights; loading it fetches none.

    Args:
        in_channels: C of the images: 1 or 3.
        image_size: H = W of the images, in pixels.
        model: the network's name at https://huggingface.co/timm, such as ``resnet18`` or
            ``resnet18.a1_in1k``, which names one of its weights.
        weights: null for random ones, or ``DEFAULT`` for those that `model` names.
        resize: side in pixels that the images are resized to, whole. None: that of the training for
            pre-trained networks, else `image_size`, but at least 32. Some networks take one size
            alone.
        frozen: let nothing train (see `PretrainedBackbone`).
        mean: of each channel, taken off. None: that of the weights' training; a checkpoint holds
            it.
        std: of each channel, divided by; the same.
        interpolation: how images are resized. None: as in the weights' training, ``bilinear`` for
            random ones; a checkpoint holds it.
        checkpoint_blocks: keep no activations of its blocks, which the backward pass computes
            again: less memory, more time.

    Raises:
        FewshotError: an unknown name, a size that the network does not take, weights that cannot be
            fetched, or no blocks to be computed again in training.
    """

    begins_at = ("weights",)
    short_names: ClassVar[ShortNames] = {
        "dino_small": {"model": "vit_small_patch16_224.dino", "weights": "DEFAULT"},
        "vit_small": {"model": "vit_small_patch16_224", "weights": "DEFAULT"},
        "convnextv2_tiny": {"model": "convnextv2_tiny", "weights": "DEFAULT"},
        "mobilenetv4_small": {"model": "mobilenetv4_conv_small", "weights": "DEFAULT"},
    }

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        model: str = "resnet18",
        weights: Literal["DEFAULT"] | None = None,
        resize: Count | None = None,
        frozen: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        interpolation: Interpolation | None = None,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__(in_channels, image_size)
        published = find_published(model, weights is not None)
        self.pretrained = weights is not None
        side = _side(model, published, image_size, resize, self.pretrained)
        if self.pretrained:
            mean, std = mean or list(published.mean), std or list(published.std)
            interpolation = interpolation or KNOWN.get(published.interpolation, "bilinear")
        self.interpolation = interpolation or "bilinear"
        seen: dict[str, Any] = {"resize": side, "mean": mean, "std": std}
        seen["interpolation"] = self.interpolation
        # a subclass may not take them all
        self.init_args |= {name: seen[name] for name in seen.keys() & self.init_args.keys()}
        network = self.build(model, published)
        if checkpoint_blocks:
            check_trained(frozen)
            keep_no_activations(network, model)
        self.take(network, features_of(network), side, mean, std, frozen)

    def build(self, model: str, published: Any) -> nn.Module:
        """The network, with the weights that are `published` where it is to have them."""
        return build_network(model, published if self.pretrained else None)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, out_features) of images (n, 3, side, side)."""
        features: Tensor = self.network(images)
        return features


def find_published(model: str, weights: bool) -> Any:
    """What timm has written down of a network and the weights that its name means.

    Args:
        model: the name.
        weights: whether there must be some.

    Raises:
        FewshotError: timm has no such network, or no such weights of it; the nearest is told.
    """
    timm = require("timm", "pretrained")
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        raise FewshotError(f"timm has no network {name!r}{nearest(name, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise FewshotError(f"timm's {name} has no weights {tag!r}{nearest(tag, tags)}")
    if weights and not timm.is_model_pretrained(model):
        raise FewshotError(f"timm has no weights of {model}; set weights: null")
    published = timm.get_pretrained_cfg(model)
    if published.input_size[0] != 3:
        raise FewshotError(
            f"timm's {model} takes images of {published.input_size[0]} channels; choose a network"
            " of colour images"
        )
    return published


def _side(model: str, published: Any, image_size: int, resize: int | None, trained: bool) -> int:
    """The side in pixels that the images are resized to."""
    size, least = int(published.input_size[-1]), int((published.min_input_size or (0, 0, 0))[-1])
    if published.fixed_input_size:
        if resize not in (None, size):
            raise FewshotError(
                f"resize is {resize}, but {model} takes {size} px alone; leave resize out"
            )
        return size
    if resize is not None and resize < least:
        raise FewshotError(f"resize is {resize}; {model} needs {least} px or more")
    # timm states few least sizes; most networks halve the image five times
    return resize or (size if trained else max(image_size, least or 32))


def features_of(network: Any) -> int:
    """How many features a network without its classifier gives."""
    # some have layers between the pooling and the classifier
    return int(getattr(network, "head_hidden_size", None) or network.num_features)


def keep_no_activations(network: Any, model: str) -> None:
    """Have the blocks of a network computed again in the backward pass.

    Raises:
        FewshotError: timm parts this network into no such blocks, or batch normalisation would
            count each batch twice.
    """
    if normalises_batches(network):
        raise FewshotError(
            f"timm's {model} normalises batches, and would count each twice where its blocks are"
            " computed again; leave checkpoint_blocks out, or choose a transformer"
        )
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise FewshotError(
            f"timm's {model} cannot compute its blocks again; leave checkpoint_blocks out"
        ) from error


def build_network(model: str, published: Any) -> nn.Module:
    """The network; with random weights where none are `published` or a checkpoint's follow.

    Weights lie in the cache of the Hugging Face hub, or as a file in that of torch.

    Raises:
        FewshotError: the weights cannot be fetched.
    """
    timm = require("timm", "pretrained")
    network: nn.Module
    if published is None or weights_follow():
        network = timm.create_model(model, pretrained=False, num_classes=0)
        return network
    hub = f"https://huggingface.co/{published.hf_hub_id}/resolve/main/model.safetensors"
    url = hub if published.hf_hub_id else published.url
    name = ".".join(filter(None, (published.architecture, published.tag)))
    file = Path(torch.hub.get_dir(), "checkpoints", f"{name}{Path(url).suffix}")
    kept = file if file.is_file() else in_cache(published.hf_hub_id, Path(url).name)
    known = {"pretrained_cfg_overlay": {"file": str(kept)}} if kept else {}
    try:
        if kept is None and published.hf_hub_id and kept_alone(""):
            raise ConnectionError("nothing here knows where the hub is")
        network = timm.create_model(model, pretrained=True, num_classes=0, **known)
    # the hub's client raises errors of whichever library it fetches with
    except Exception as error:
        raise FewshotError(
            f"the weights of {model} cannot be fetched ({type(error).__name__}); put {url} into"
            f" {file} yourself, or set weights: null"
        ) from error
    return network
