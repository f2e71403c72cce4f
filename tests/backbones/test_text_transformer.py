"""The transformer against its equations, and inside the engine.

Padding and derivatives: see test_text.py.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from fewshot.backbones import TextTransformer
from fewshot.engine.modes import How
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners import MAML

TOKENS = torch.tensor([[4, 2, 5, 1, 3], [3, 3, 1, 0, 0], [2, 0, 0, 0, 0]])
INPUTS = {"tokens": TOKENS, "lengths": torch.tensor([5, 3, 1])}


def small() -> TextTransformer:
    torch.manual_seed(0)
    network = TextTransformer(
        6, embedding_dim=6, layers=2, heads=3, feedforward=7, dropout=0.0
    ).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.6)
    return network


def normalised(words: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = words - words.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return normal * w[f"{name}.weight"] + w[f"{name}.bias"]


def written_out(w: dict[str, Tensor], text: Tensor) -> Tensor:
    """The features (6,) of one text, word by word and head by head."""
    words = w["embedding.weight"][text].clone()
    for place in range(len(text)):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            words[place, 2 * i] += math.sin(angle)
            words[place, 2 * i + 1] += math.cos(angle)
    for layer in ("layers.0", "layers.1"):
        normal = normalised(words, w, f"{layer}.norm1")
        rows = (
            normal @ w[f"{layer}.self_attn.in_proj_weight"].T + w[f"{layer}.self_attn.in_proj_bias"]
        )
        queries, keys, values = rows.chunk(3, dim=1)
        heads = []
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            weights = (queries[:, part] @ keys[:, part].T / math.sqrt(2)).softmax(1)
            heads.append(weights @ values[:, part])
        joined = torch.cat(heads, 1)
        words = (
            words
            + joined @ w[f"{layer}.self_attn.out_proj.weight"].T
            + w[f"{layer}.self_attn.out_proj.bias"]
        )
        inside = (
            normalised(words, w, f"{layer}.norm2") @ w[f"{layer}.linear1.weight"].T
            + w[f"{layer}.linear1.bias"]
        )
        words = (
            words
            + inside.clamp(min=0) @ w[f"{layer}.linear2.weight"].T
            + w[f"{layer}.linear2.bias"]
        )
    return normalised(words, w, "norm").mean(0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_features_are_those_of_the_equations(training: bool, gradients: bool) -> None:
    # without gradients and out of training torch goes a fused way of its own
    network = small().train(training)
    with torch.set_grad_enabled(gradients):
        features = network(INPUTS)
    assert features.shape == (3, network.out_features) == (3, 6)
    expected = [
        written_out(network.state_dict(), text[:n])
        for text, n in zip(TOKENS, INPUTS["lengths"], strict=True)
    ]
    torch.testing.assert_close(features, torch.stack(expected), rtol=0, atol=1e-12)


def test_a_text_without_words_is_finite_on_every_way() -> None:
    inputs = {"tokens": torch.zeros(2, 4, dtype=torch.int64), "lengths": torch.tensor([0, 0])}
    network = small()
    for training in (True, False):
        with torch.no_grad():
            assert not network.train(training)(inputs).any()


def test_the_layers_begin_differently() -> None:
    network = TextTransformer(6, layers=3)
    first = [layer.get_parameter("linear1.weight") for layer in network.layers]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = TextTransformer(6, dropout=0.5)
    kept = network.eval()(INPUTS)
    assert torch.equal(kept, network(INPUTS))
    assert not torch.allclose(kept, network.train()(INPUTS), atol=0.1)


def test_the_meta_gradient_is_the_same_by_loop_and_vmap_and_by_differences() -> None:
    learner = MAML(
        small(), task={"kind": "classification", "way": 2}, inner_steps=2, inner_lr=0.1
    ).double()
    generator = torch.Generator().manual_seed(3)

    def examples() -> Examples:
        lengths = torch.randint(1, 6, (3, 4), generator=generator)
        tokens = torch.randint(1, 6, (3, 4, 5), generator=generator)
        inputs: Inputs = {
            "tokens": tokens * (torch.arange(5) < lengths.unsqueeze(-1)),
            "lengths": lengths,
        }
        return Examples(inputs, torch.arange(2).repeat(3, 2))

    batch = Episode(examples(), examples())
    parameters = [p for p in learner.parameters() if p.requires_grad]

    def loss(how: How) -> Tensor:
        learner.episode_parallel = how
        return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    one, two = (torch.autograd.grad(loss(how), parameters) for how in ("loop", "vmap"))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    steps = [1e-6 * torch.randn_like(p) for p in parameters]
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(sign * step)
            ends.append(loss("vmap"))
    slope = torch.stack([(g * s).sum() for g, s in zip(one, steps, strict=True)]).sum()
    torch.testing.assert_close((ends[0] - ends[1]) / 2, slope, rtol=1e-5, atol=0)


def test_sizes_out_of_range_are_refused() -> None:
    for name in ("layers", "heads", "feedforward"):
        with pytest.raises(FewshotError, match=f"^{name} is 0; set {name} >= 1$"):
            TextTransformer(6, **{name: 0})
    for size, heads in ((9, 3), (10, 4)):
        with pytest.raises(
            FewshotError, match=f"^embedding_dim is {size}; set it to an even multiple of the heads"
        ):
            TextTransformer(6, embedding_dim=size, heads=heads)
