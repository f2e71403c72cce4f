"""A backbone of one's own that gives something else than features: one line, in every family."""

import re
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import (
    NAMES,
    OF_LANGUAGE_MODELS,
    REFERENCES,
    SMALL,
    UNTRAINED,
    pair,
    tiny_backbone,
)
from torch import Tensor, nn

from fewshot import MAML, FewshotError
from fewshot.backbones.base import features_of
from fewshot.episodes.types import episode

OWN_FEATURES = {"GaussianProcess", "TailFrequency", *REFERENCES}  # no backbone is given to them
TAKING = [name for name in NAMES if name not in OF_LANGUAGE_MODELS | OWN_FEATURES]
WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "maps": (lambda features: features[..., None, None], r"\(.*, 1, 1\), not \("),
    "tuple": (lambda features: (features, None), r"a tuple, not one tensor \("),
    "nothing": (lambda features: None, r"None, not one tensor \("),
    "length": (lambda features: features[..., :-1], r"\(.*\), not \("),
    "number": (lambda features: features[:1].flatten(), r"\(.*\), not \("),
    "integers": (lambda features: features.long(), r"torch.int64 of shape \(.*\), which fits"),
    "double": (lambda features: features.double(), r"torch.float64 of shape \(.*\), which fits"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", TAKING)
def test_every_learner_names_the_backbone_and_the_shape(name: str, kind: str) -> None:
    spoil, message = WRONG[kind]

    def spoiled(name: str, benchmark: Any) -> nn.Module:
        backbone = tiny_backbone(name, benchmark)
        method = "maps" if name == "PANet" and hasattr(backbone, "maps") else "forward"
        right = getattr(backbone, method)
        setattr(backbone, method, lambda inputs: spoil(right(inputs)))
        return backbone

    given = {"transform": "l2"} if name == "SimpleShot" else SMALL.get(name, {})
    learner, data = pair(name, make_backbone=spoiled, given=given)
    data.setup("test")
    batch: Any = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    one_line = re.compile(rf"backbone {type(learner.backbone).__name__} gives {message}.*; have ")
    with pytest.raises(FewshotError) as caught:
        learner.evaluate(batch.parts[0])
    assert one_line.match(str(caught.value)), str(caught.value)
    support, query = episode(batch.parts[0], 0)
    with pytest.raises(FewshotError) as caught:
        learner.predict(learner.adapt(support), query.inputs)
    assert one_line.match(str(caught.value)), str(caught.value)
    if name not in UNTRAINED:
        data.setup("fit")
        learner.trainer = L.Trainer(logger=False, enable_checkpointing=False)
        plain = learner.trains_on == "examples"
        loader: Any = data._example_loader() if plain else data.train_dataloader()
        batch = data.on_after_batch_transfer(next(iter(loader)), 0)
        with pytest.raises(FewshotError) as caught:
            list(learner.train().training_outcomes(batch))
        assert one_line.match(str(caught.value)), str(caught.value)


class Flat(nn.Module):
    """Takes images or a dict of them, and has no parameters."""

    out_features = 4

    def forward(self, inputs: Any) -> Tensor:
        images: Tensor = inputs["image"] if isinstance(inputs, dict) else inputs
        return images.flatten(1)


def test_right_features_pass_in_every_type_of_floats() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        images = torch.ones(3, 2, 2, dtype=dtype)
        assert features_of(Flat(), images).dtype == dtype
        assert features_of(Flat(), {"image": images}).shape == (3, 4)


def test_the_line() -> None:
    model = MAML(Flat(), task={"kind": "classification", "way": 2})
    with pytest.raises(FewshotError) as caught:
        model.network(torch.zeros(3, 5))
    assert str(caught.value) == (
        "backbone Flat gives (3, 5), not (3, 4); have its forward give 4 floats, its out_features,"
        " for each input"
    )
