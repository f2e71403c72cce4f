"""The network that an inner loop adapts: backbone and head as one module."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fewshot.backbones.adapters import Adapters, AdapterWeights
from fewshot.backbones.base import features_of, maps_of, needed_map_shape
from fewshot.engine.mixing import Mixture, run_mixed
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.trials import Generators
from fewshot.episodes.types import Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.hyperparameters import build
from fewshot.tasks import Task


class Network(nn.Module):
    """Backbone and head as one module, so that all parameters are swapped in one call.

    Args:
        backbone: inputs to features.
        head: features to outputs.
        dense: take the backbone's feature maps (n, C, h, w) for the features, so that the outputs
            are maps too.
        adapters: of the backbone, which hang on it from now on and adapt in its place.
    """

    mixed_at: tuple[str, ...] = ()
    """The modules of the backbone of which one may be drawn, to mix other examples in."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        dense: bool = False,
        adapters: AdapterWeights | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.dense, self.adapters = backbone, head, dense, adapters
        if adapters is not None:
            backbone.requires_grad_(False)
            adapters.attach(backbone)

    @property
    def unfrozen(self) -> nn.Module:
        """What may change: all of it, or the head where the backbone is frozen.

        A frozen one keeps its running averages too.
        """
        return self.head if getattr(self.backbone, "frozen", False) else self

    def features(self, inputs: Inputs | Mixture) -> Tensor:
        """What the head reads of inputs (n, ...)."""
        if isinstance(inputs, Mixture):
            layers = [self.backbone.get_submodule(name) for name in self.mixed_at]
            return run_mixed(self.features, inputs, layers)
        read = maps_of if self.dense else features_of
        features = read(self.backbone, inputs)
        return features if self.adapters is None else self.adapters.mapped(features)

    def forward(self, inputs: Inputs | Mixture) -> Tensor:
        """Outputs (n, output_size, ...) of inputs (n, ...)."""
        outputs = self.head(self.features(inputs))
        assert isinstance(outputs, Tensor)
        return outputs


def lazy_layer(network: nn.Module) -> str | None:
    """The first module whose parameters have no shape yet, as ``name (class)``."""
    for name, module in network.named_modules():
        if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
            return f"{name} ({type(module).__name__})".strip()
    return None


def check_shapes(network: nn.Module, learner: str) -> None:
    """Check that all parameters have their shapes.

    Raises:
        FewshotError: one has none; `learner` makes others of the same shapes.
    """
    if (lazy := lazy_layer(network)) is not None:
        raise FewshotError(
            f"{learner} must know the shapes of all weights, but {lazy} has none before it is run;"
            " run the network on an example before"
        )


@torch.no_grad()
def give_shapes(network: Network, inputs: Inputs) -> None:
    """Let lazy layers take their shapes from inputs (n, ...) now.

    An inner loop needs its weights before the network has run.
    """
    if lazy_layer(network) is None:
        return
    device = next(iter(inputs.values())).device if isinstance(inputs, dict) else inputs.device
    generators = Generators(device)
    with evaluation_mode(network):
        features = network.features(map_tensors(torch.clone, inputs))
        if lazy_layer(network.head) is not None:
            network.head(features)
    generators.restore()  # what training draws is the same as without


def default_head(backbone: nn.Module, task: Task) -> nn.Module:
    """The task's own head, or a linear layer from features (n, D) to outputs.

    In segmentation a 1x1 convolution of feature maps.
    """
    if task.dense:
        return nn.Conv2d(needed_map_shape(backbone, "a 1x1 convolution")[0], task.output_size, 1)
    features = backbone.out_features
    assert isinstance(features, int)  # `MetaLearner` has checked it
    own = task.head(features)
    return nn.Linear(features, task.output_size) if own is None else own


def head_of(head: nn.Module | None, backbone: nn.Module, task: Task) -> nn.Module:
    """A head that is given, or described; `default_head` where there is none."""
    built: nn.Module | None = build(head, nn.Module, "head")
    return default_head(backbone, task) if built is None else built


def adapters_of(adapters: Adapters | None, backbone: nn.Module, learner: str) -> Any:
    """The adapters' weights for a backbone; None where there are none.

    Raises:
        FewshotError: the backbone is frozen as a whole, or has no layer for them.
    """
    kind: Adapters | None = build(adapters, Adapters, "adapters")
    if kind is None:
        return None
    if getattr(backbone, "frozen", False):
        raise FewshotError(
            f"the backbone is frozen, so that no gradient reaches its adapters; set frozen: false:"
            f" {learner} leaves the weights beside adapters alone by itself"
        )
    features = backbone.out_features
    assert isinstance(features, int)  # `MetaLearner` has checked it
    return kind.of(backbone, features)
