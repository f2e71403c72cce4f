"""torchvision's classification networks as feature extractors, pre-trained on ImageNet or not."""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.pretrained import (
    KNOWN,
    Interpolation,
    PretrainedVision,
    ShortNames,
)
from fewshot.errors import FewshotError, nearest
from fewshot.hyperparameters import weights_follow

if TYPE_CHECKING:  # elsewhere where it is used: it takes a second
    from torchvision import models


class TorchvisionBackbone(PretrainedVision):
    """Torchvision's networks: ResNet, EfficientNet, ViT, ...

    By name, its classifier left out. Paper: none, see each.

    Pre-trained on ImageNet they are the strong start for few images of one's own: a
    `PrototypicalNetwork` on one is useful before any training (``fewshot test``). A checkpoint
    holds the trained weights; loading it fetches none.

    Images come in [0, 1]. Grey ones are repeated to three channels, so that the first convolution
    stays the trained one. For pre-trained networks they are normalised with the mean and the
    deviation of their training. Dropout in training is each network's own.

    Args:
        in_channels: C of the images: 1 or 3.
        image_size: H = W of the images, in pixels.
        model: the network's name in `torchvision.models`, such as ``resnet18``.
        weights: null for random ones, ``DEFAULT`` for the best there are, or a name such as
            ``IMAGENET1K_V1``; fetched once into ``$TORCH_HOME``.
        resize: side in pixels that the images are resized to (the cost grows with its square).
            None: that of the training for pre-trained networks, which are much worse on small
            images; else `image_size`, or the least that the network takes.
        frozen: let nothing train (see `PretrainedBackbone`).
        interpolation: how images are resized. None: as in the weights' training, ``bilinear`` for
            random ones.

    Raises:
        FewshotError: an unknown name, a size that the network does not take, or weights that cannot
            be fetched.
    """

    begins_at = ("weights",)
    short_names: ClassVar[ShortNames] = {
        "resnet18": {"model": "resnet18", "weights": "DEFAULT"},
        "resnet50": {"model": "resnet50", "weights": "DEFAULT"},
        "efficientnet_b0": {"model": "efficientnet_b0", "weights": "DEFAULT"},
        "mobilenet_v3_small": {"model": "mobilenet_v3_small", "weights": "DEFAULT"},
        "convnext_tiny": {"model": "convnext_tiny", "weights": "DEFAULT"},
        "vit_b_16": {"model": "vit_b_16", "weights": "DEFAULT"},
    }

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        model: str = "resnet18",
        weights: str | None = None,
        resize: Count | None = None,
        frozen: bool = False,
        interpolation: Interpolation | None = None,
    ) -> None:
        super().__init__(in_channels, image_size)
        chosen = find_weights(model, weights)
        self.pretrained = chosen is not None
        network = build_network(model, chosen)
        out_features = remove_classifier(network)
        preset = None if chosen is None else chosen.transforms()
        trained_size = None if preset is None else preset.crop_size[0]
        side = _side(model, network, image_size, resize, trained_size)
        mean, std = (getattr(preset, name, None) for name in ("mean", "std"))
        own: Interpolation = (
            "bilinear" if preset is None else KNOWN.get(preset.interpolation.value, "bilinear")
        )
        self.interpolation = interpolation or own
        self.take(network, out_features, side, mean, std, frozen)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, out_features) of images (n, 3, side, side)."""
        features: Tensor = self.network(images)
        return features


def _side(
    model: str, network: nn.Module, image_size: int, resize: int | None, trained_size: int | None
) -> int:
    """The side in pixels that the images are resized to."""
    from torchvision import models

    least: int = models.get_model_weights(model).DEFAULT.meta["min_size"][0]
    # these two take no images but of the size that they were built for
    if isinstance(network, models.VisionTransformer | models.MaxVit):
        size = network.image_size if isinstance(network, models.VisionTransformer) else least
        if resize not in (None, size):
            raise FewshotError(
                f"resize is {resize}, but {model} takes {size} px alone; leave resize out"
            )
        return size
    if resize is not None and resize < least:
        raise FewshotError(f"resize is {resize}; {model} needs {least} px or more")
    return resize or trained_size or max(image_size, least)


def find_weights(model: str, weights: str | None) -> "models.WeightsEnum | None":
    """The entry of torchvision's table of weights; None for none.

    Raises:
        FewshotError: there is no such network, or it has no such weights; the nearest name is told.
    """
    from torchvision import models

    names = models.list_models(module=models)  # those that classify images
    if model not in names:
        raise FewshotError(
            f"torchvision has no classification network {model!r}{nearest(model, names)}"
        )
    table = models.get_model_weights(model)
    # the text is what jsonargparse 4.53 makes of `--model.backbone.weights null`
    if weights in (None, "None"):
        return None
    if weights not in table.__members__:
        raise FewshotError(
            f"{model} has no weights {weights!r}{nearest(weights, table.__members__)}"
        )
    return table[weights]


def build_network(model: str, weights: "models.WeightsEnum | None", **kwargs: Any) -> nn.Module:
    """The network with its weights; with random ones inside `without_weights`, all else the same.

    Args:
        model: its name.
        weights: an entry of torchvision's table, or none.
        **kwargs: further arguments of torchvision's builder.

    Raises:
        FewshotError: the weights cannot be fetched.
    """
    from torchvision import models

    network: nn.Module
    if weights is None or weights_follow():
        network = models.get_model(model, weights=None, **_implied(model, weights), **kwargs)
        return network
    try:
        network = models.get_model(model, weights=weights, **kwargs)
    # RuntimeError: what came is not what the name's checksum says
    except (OSError, RuntimeError) as error:
        file = weights.url.rpartition("/")[2]
        raise FewshotError(
            f"the weights of {model} cannot be fetched ({error}); put {weights.url} into"
            f" {torch.hub.get_dir()}/checkpoints/{file} yourself, or set weights: null"
        ) from error
    return network


def _implied(model: str, weights: "models.WeightsEnum | None") -> dict[str, Any]:
    """The arguments that torchvision's builders take from the weights by themselves."""
    # positions are learned: as many as the images of the training have
    if model.startswith("vit_"):
        return {} if weights is None else {"image_size": weights.meta["min_size"][0]}
    # they were trained on another normalisation, to which they convert
    if model in ("googlenet", "inception_v3"):
        return {"transform_input": weights is not None, "init_weights": True}
    return {}


def remove_classifier(network: nn.Module) -> int:
    """Put the identity in place of the last layer, and nothing in place of auxiliary classifiers.

    Every torchvision network ends in a linear layer or (SqueezeNet) a 1x1 convolution to the
    classes.

    Returns:
        How many features come out instead.
    """
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
            # a plain bool; else they return a tuple
            network.aux_logits = False  # type: ignore[assignment]
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    name, layer = layers[-1]
    network.set_submodule(name, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
