"""Pre-trained image transformers of the transformers library: DINO's, CLIP's, SigLIP's."""

import inspect
from typing import Any, ClassVar

from PIL.Image import Resampling
from torch import Tensor

from fewshot.arguments import Count
from fewshot.backbones.hugging_face import load_transformer
from fewshot.backbones.pretrained import (
    Interpolation,
    PretrainedVision,
    ShortNames,
    check_trained,
)
from fewshot.datasets.reading.hub import kept_alone
from fewshot.errors import FewshotError
from fewshot.extras import require

BICUBIC = Resampling.BICUBIC.value


class HuggingFaceVision(PretrainedVision):
    """HuggingFaceVision: DINOv2, DINOv3, the image towers of CLIP and SigLIP, and their like.

    Paper: arXiv:2304.07193.

    By name or folder; needs ``pip install 'fewshot-lightning[pretrained]'``. Features are what each
    model calls its pooled output (of CLIP: before the projection to the texts' space).
    `TorchvisionBackbone` says how images are seen. A checkpoint holds the model's config, how it
    sees images and its weights: loading it needs neither a network nor the folder.

    Args:
        in_channels: C of the images: 1 or 3.
        image_size: H = W of the images, in pixels.
        model: the name at https://huggingface.co/models or a folder.
        resize: side in pixels that the images are resized to, whole, a multiple of the model's
            patches. None: that of the model's own preprocessing.
        frozen: let nothing train (see `PretrainedBackbone`).
        config: builds an untrained network from these values of the model's config instead of
            loading it; what a checkpoint holds.
        mean: of each channel, taken off. None: that of the model's own preprocessing; a checkpoint
            holds it.
        std: of each channel, divided by; the same.
        interpolation: how images are resized. None: as by the model's own preprocessing, where that
            is one of the two, else ``bilinear``; a checkpoint holds it.
        checkpoint_blocks: in training keep no activations of its layers, which the backward pass
            computes again: less memory, more time.

    Raises:
        FewshotError: the model cannot be loaded, is none of images, takes no such size, or has no
            layers to be computed again in training.
    """

    begins_at = ("model",)
    short_names: ClassVar[ShortNames] = {
        "dinov2_small": {"model": "facebook/dinov2-small"},
        "dinov2_base": {"model": "facebook/dinov2-base"},
        "dinov3_small": {"model": "facebook/dinov3-vits16-pretrain-lvd1689m"},
        "clip_vit_b32": {"model": "openai/clip-vit-base-patch32"},
        "clip_vit_b16": {"model": "openai/clip-vit-base-patch16"},
        "siglip_base": {"model": "google/siglip-base-patch16-224"},
    }

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        model: str = "facebook/dinov2-small",
        resize: Count | None = None,
        frozen: bool = False,
        config: dict[str, Any] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        interpolation: Interpolation | None = None,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__(in_channels, image_size)
        self.pretrained = config is None
        whole = load_transformer(
            model,
            config,
            extra="pretrained",
            holds="its config.json, preprocessor_config.json and model.safetensors",
        )
        network = getattr(whole, "vision_model", whole)  # of a model of images and texts
        settings = network.config
        if not hasattr(settings, "image_size") or not hasattr(settings, "patch_size"):
            raise FewshotError(
                f"the model {model!r} is no transformer on images; choose one such as"
                " facebook/dinov2-small"
            )
        trained_size: int = settings.image_size
        if config is None:
            trained_size, own_mean, own_std, own_resampling = own_preprocessing(model)
            mean, std = mean or own_mean, std or own_std
            interpolation = interpolation or own_resampling
        self.interpolation = interpolation or "bilinear"
        side = resize or trained_size
        if side % (patch := settings.patch_size):
            raise FewshotError(
                f"resize is {side}; {model} reads patches of {patch} px: set"
                f" {max(1, round(side / patch)) * patch}"
            )
        self.init_args |= {"config": settings.to_dict(), "resize": side, "mean": mean, "std": std}
        self.init_args["interpolation"] = self.interpolation
        # of its pre-training alone; a distributed run would wait for its gradient
        masks = [name for name, _ in network.named_parameters() if name.endswith("mask_token")]
        for name in masks:
            network.get_parameter(name).requires_grad_(False)
        self.unread = tuple(f"network.{name}" for name in masks)
        # some fit their positions to another size by themselves, others are asked to
        asked = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        if checkpoint_blocks:
            check_trained(frozen)
            if not network.supports_gradient_checkpointing:
                raise FewshotError(
                    f"the model {model!r} cannot compute its layers again; leave checkpoint_blocks"
                    " out"
                )
            # transformers 5 names it anew, and warns of the old name
            old = network.gradient_checkpointing_enable
            enable = getattr(network, "activation_checkpointing_enable", old)
            enable({"use_reentrant": False})
        self.options = {"interpolate_pos_encoding": True} if asked else {}
        self.take(network, int(settings.hidden_size), side, mean, std, frozen)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, out_features) of images (n, 3, side, side)."""
        features: Tensor | None = self.network(images, **self.options).pooler_output
        if features is None:
            raise FewshotError(
                f"the model {self.init_args['model']!r} pools no features; choose one such as"
                " facebook/dinov2-small"
            )
        return features


def own_preprocessing(
    name: str,
) -> tuple[int, list[float] | None, list[float] | None, Interpolation]:
    """What the model `name` has learned to see.

    The side, mean and deviation of each channel, and how images were resized.

    Raises:
        FewshotError: its preprocessor_config.json cannot be read.
    """
    transformers = require("transformers", "pretrained")
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            name, local_files_only=kept_alone(name)
        )
    except (OSError, ValueError) as error:
        raise FewshotError(
            f"how the model {name!r} sees images cannot be read ({str(error).splitlines()[0]}); put"
            " its preprocessor_config.json beside its config.json"
        ) from error
    facts = processor.to_dict()
    size = facts["crop_size"] if facts.get("do_center_crop") else facts["size"]
    side = int(size.get("height") or size["shortest_edge"])
    resampling: Interpolation = "bicubic" if facts.get("resample") == BICUBIC else "bilinear"
    if not facts.get("do_normalize"):
        return side, None, None, resampling
    return side, list(facts["image_mean"]), list(facts["image_std"]), resampling
