"""The relation encoder against its equations, word by word; padding, derivatives and refusals."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fewshot.backbones import RelationCNN
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

INPUTS = {
    "tokens": torch.tensor([[4, 2, 5, 1, 3, 6], [3, 3, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0]]),
    "lengths": torch.tensor([6, 3, 1]),
    "head": torch.tensor([[0, 2], [2, 3], [0, 1]]),
    "tail": torch.tensor([[5, 6], [0, 1], [0, 1]]),
}


def written_out(
    w: Mapping[str, Tensor], text: list[int], head: int, tail: int, limit: int
) -> Tensor:
    """The features (F,) of one text: a word is its vector and two of distances.

    The largest product.
    """
    size = w["convolution.weight"].shape[1]
    words = [
        torch.cat(
            [
                w["embedding.weight"][word],
                w["to_head.weight"][min(max(place - head, -limit), limit) + limit],
                w["to_tail.weight"][min(max(place - tail, -limit), limit) + limit],
            ]
        )
        for place, word in enumerate(text)
    ]
    edge = torch.zeros(size, dtype=torch.float64)
    padded = [edge, *words, edge]
    windows = [torch.stack(padded[i : i + 3], 1) for i in range(len(text))]
    answers = [
        (w["convolution.weight"] * window).sum((1, 2)) + w["convolution.bias"] for window in windows
    ]
    return torch.stack(answers).amax(0).clamp(min=0)


def network(max_length: int = 3, **options: float) -> RelationCNN:
    torch.manual_seed(0)
    return RelationCNN(7, 4, position_dim=2, filters=8, max_length=max_length, **options).double()  # type: ignore[arg-type]


def rows(inputs: dict[str, Tensor]) -> list[tuple[list[int], int, int]]:
    texts = [
        text[:length].tolist()
        for text, length in zip(inputs["tokens"], inputs["lengths"], strict=True)
    ]
    return list(
        zip(texts, inputs["head"][:, 0].tolist(), inputs["tail"][:, 0].tolist(), strict=True)
    )


@pytest.mark.parametrize("limit", [3, 128])
def test_the_features_are_those_of_the_equations(limit: int) -> None:
    cnn = network(limit)
    expected = torch.stack(
        [written_out(dict(cnn.named_parameters()), *row, limit) for row in rows(INPUTS)]
    )
    assert (expected > 0).any(1).all()
    torch.testing.assert_close(cnn(INPUTS), expected, rtol=1e-12, atol=1e-14)
    longer = {**INPUTS, "tokens": torch.nn.functional.pad(INPUTS["tokens"], (0, 4))}
    torch.testing.assert_close(cnn(longer), expected, rtol=1e-12, atol=1e-14)


def test_the_derivatives_are_those_of_the_equations() -> None:
    cnn = network()
    parameters = dict(cnn.named_parameters())
    expected = torch.stack([written_out(parameters, *row, 3) for row in rows(INPUTS)])
    reference = torch.autograd.grad(expected.square().sum(), list(parameters.values()))
    found = torch.autograd.grad(cnn(INPUTS).square().sum(), list(parameters.values()))
    for one, other in zip(found, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_it_reads_where_the_entities_stand() -> None:
    cnn = network()
    moved = {**INPUTS, "head": INPUTS["tail"], "tail": INPUTS["head"]}
    assert not torch.allclose(cnn(INPUTS)[0], cnn(moved)[0])
    same = cnn(INPUTS)[2], cnn(moved)[2]  # where head and tail stand in one place
    torch.testing.assert_close(*same, rtol=0, atol=0)


def test_it_can_be_vmapped_over_episodes() -> None:
    cnn = network()
    stacked: dict[str, Tensor] = {
        name: torch.stack([value, value.flip(0)]) for name, value in INPUTS.items()
    }
    features = torch.func.vmap(cnn)(stacked)
    torch.testing.assert_close(
        features, torch.stack([cnn(INPUTS), cnn(INPUTS).flip(0)]), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {name: INPUTS[name] for name in ("tokens", "lengths")},
            "where a sentence's entities stand .*; use FewRel",
        ),
        (torch.zeros(2, 3), "reads a dict of 'tokens' and 'lengths', got a tensor"),
    ],
)
def test_other_inputs_are_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        network()(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 2}, "width is 2; set an odd width"),
        ({"dropout": 1.5}, "dropout"),
        ({"filters": 0}, "filters"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        RelationCNN(7, **options)  # type: ignore[arg-type]  # of several types
