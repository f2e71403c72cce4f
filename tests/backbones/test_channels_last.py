"""Networks in channels last make no map in the other layout, whatever images they are given.

Their parameters lie as everybody else's do.
"""

import io
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from every_learner import TinyImages
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor, nn
from torch.func import functional_call

from fewshot import (
    ANIL,
    MAML,
    WRN28_10,
    Conv4,
    MAMLPlusPlus,
    MetaSGD,
    Reptile,
    ResNet12,
)
from fewshot.backbones import Backbone
from fewshot.backbones.channels_last import channels_last
from fewshot.episodes.types import Episode, Examples
from fewshot.learners import OptimizationLearner


def maps_of_layers(network: Backbone, weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """What each normalisation layer is given."""
    maps: list[Tensor] = []
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: maps.append(given[0])) for layer in layers
    ]
    functional_call(network, weights, images)
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(layers)
    return maps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("adapted", [False, True], ids=["as made", "adapted"])
@pytest.mark.parametrize("cls", [Conv4, ResNet12])
def test_all_maps_lie_channels_last(
    cls: type[Conv4] | type[ResNet12], adapted: bool, channels: int
) -> None:
    network: Backbone = (
        Conv4(channels, 32, width=8)
        if cls is Conv4
        else ResNet12(channels, 32, widths=[8, 8, 8, 8])
    )
    weights: dict[str, Tensor] = dict(network.named_parameters())
    images = torch.rand(2, channels, 32, 32)
    if adapted:  # gradients have strides of their own
        gradients = torch.autograd.grad(network(images).sum(), list(weights.values()))
        weights = {
            name: w - 0.1 * g for (name, w), g in zip(weights.items(), gradients, strict=True)
        }
    for maps in maps_of_layers(network, weights, images):
        assert maps.is_contiguous(memory_format=torch.channels_last)
        assert not maps.is_contiguous()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_images_stay_the_same(memory_format: torch.memory_format, channels: int) -> None:
    images = torch.rand(2, channels, 4, 6).contiguous(memory_format=memory_format)
    same = channels_last(images)
    assert torch.equal(same, images)
    assert same.stride() == (24 * channels, 1, 6 * channels, channels)
    copied = channels == 3 and memory_format == torch.contiguous_format
    assert (same.data_ptr() != images.data_ptr()) == copied


CONVOLUTIONAL: list[Callable[[], Backbone]] = [
    lambda: Conv4(3, 32, width=8),
    lambda: Conv4(1, 32, width=8, downsample="stride", norm="group"),
    lambda: ResNet12(3, 32, widths=[8, 8, 8, 8]),
    lambda: WRN28_10(3, 32, depth=10, width=1),
]


@pytest.mark.parametrize("make", CONVOLUTIONAL)
def test_whoever_views_parameters_flat_can(make: Callable[[], Backbone]) -> None:
    network = make()
    for parameter in network.parameters():
        assert parameter.is_contiguous()
        parameter.view(-1)
    torch.nn.utils.parameters_to_vector(network.parameters())


@pytest.mark.parametrize("cls", [MAML, MetaSGD, Reptile, MAMLPlusPlus])
def test_so_can_they_of_learners_after_a_step(cls: type[OptimizationLearner]) -> None:
    learner = cls(Conv4(3, 16, width=8), task={"kind": "classification", "way": 2})
    episodes = Episode(
        *(
            Examples(torch.rand(1, 4, 3, 16, 16), torch.tensor([[0, 1, 0, 1]]))
            for _ in ("support", "query")
        )
    )
    optimizer = torch.optim.Adam(learner.parameters())
    for outcome in learner.run(episodes, training=True):
        outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for parameter in learner.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad is None or parameter.grad.is_contiguous()
    torch.nn.utils.parameters_to_vector(learner.parameters())


def test_pruning_works(tmp_path: Path) -> None:
    data = TinyImages(way=3, shot=2, queries=3, train_episodes=8, val_episodes=2, test_episodes=2)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelPruning("l1_unstructured", amount=0.3, verbose=0)],
    )  # fmt: skip
    learner = ANIL(Conv4(1, 4, width=8, pooled_blocks=2), task=data.task)
    trainer.fit(learner, data)
    zero = torch.cat([(p == 0).flatten() for n, p in learner.named_parameters() if "weight" in n])
    assert zero.float().mean() > 0.1


def test_weights_that_were_stored_in_channels_last_load() -> None:
    # those of 0.1.0 and of what was trained before
    old, network = (Conv4(3, 32, width=8) for _ in range(2))
    stored = io.BytesIO()
    torch.save(old.to(memory_format=torch.channels_last).state_dict(), stored)
    stored.seek(0)
    network.load_state_dict(torch.load(stored))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(images), old(images))
    assert all(parameter.is_contiguous() for parameter in network.parameters())
