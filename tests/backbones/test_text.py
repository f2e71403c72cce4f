"""Text networks: written-out float64 references, padding, vmap, second derivatives, bad inputs."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewshot.backbones.bag_of_words import BagOfWords
from fewshot.backbones.base import Backbone
from fewshot.backbones.bilstm import BiLSTM
from fewshot.backbones.relation_cnn import RelationCNN
from fewshot.backbones.text import TextBackbone
from fewshot.backbones.text_cnn import TextCNN
from fewshot.backbones.text_transformer import TextTransformer
from fewshot.errors import FewshotError

VOCAB, PLACES = 11, 7
LENGTHS = (1, 2, 5, PLACES)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On small tensors, waiting threads cost 20 times the work on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def texts(lengths: Sequence[int] = LENGTHS, places: int = PLACES) -> dict[str, Tensor]:
    """Random texts of these lengths, padded with 0 to `places`."""
    tokens = torch.randint(
        1, VOCAB, (len(lengths), places), generator=torch.Generator().manual_seed(0)
    )
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    return {"tokens": tokens, "lengths": torch.tensor(lengths)}


def networks() -> dict[str, Backbone]:
    """The networks in float64, all weights (biases too) standard normal."""
    networks: dict[str, Backbone] = {
        "cnn": TextCNN(VOCAB, embedding_dim=3, filters=5, widths=[1, 2, 4]),
        "bag": BagOfWords(VOCAB, embedding_dim=3),
        "dan": BagOfWords(VOCAB, embedding_dim=3, hidden_features=[5, 6]),
        "transformer": TextTransformer(
            VOCAB, embedding_dim=4, layers=2, heads=2, feedforward=5, dropout=0.0
        ),
        "lstm-max": BiLSTM(VOCAB, embedding_dim=3, hidden=2, layers=2),
        "lstm-mean": BiLSTM(VOCAB, embedding_dim=3, hidden=2, pooling="mean"),
        "lstm-last": BiLSTM(VOCAB, embedding_dim=3, hidden=2, layers=2, pooling="last"),
    }
    generator = torch.Generator().manual_seed(0)
    for network in networks.values():
        for parameter in network.double().parameters():
            torch.nn.init.normal_(parameter, generator=generator)
    return networks


@pytest.fixture(params=["cnn", "bag", "dan", "transformer", "lstm-max", "lstm-mean", "lstm-last"])
def network(request: pytest.FixtureRequest) -> Backbone:
    return networks()[request.param]


def written_out_cnn(weights: dict[str, Tensor], words: list[int]) -> list[float]:
    """TextCNN of one text in loops: every window that holds a word, zeros around the text."""
    features, vectors = [], weights["embedding.weight"].numpy()
    for i in range(3):
        kernels, bias = (weights[f"convolutions.{i}.{name}"].numpy() for name in ("weight", "bias"))
        width = kernels.shape[-1]
        for kernel, offset in zip(kernels, bias, strict=True):
            best = 0.0  # the ReLU
            for first in range(1 - width, len(words)):
                total = float(offset)
                for place in range(width):
                    if 0 <= first + place < len(words):
                        total += float(kernel[:, place] @ vectors[words[first + place]])
                best = max(best, total)
            features.append(best)
    return features


def written_out_bag(weights: dict[str, Tensor], words: list[int]) -> list[float]:
    """BagOfWords of one text: the mean, then every linear layer there is."""
    feature = sum(
        (weights["embedding.weight"][word] for word in words), torch.zeros(3).double()
    ) / len(words)
    for i in (0, 2):
        if f"layers.{i}.weight" in weights:
            feature = (weights[f"layers.{i}.weight"] @ feature + weights[f"layers.{i}.bias"]).clamp(
                min=0
            )
    return feature.tolist()


@pytest.mark.parametrize("name", ["cnn", "bag", "dan"])
def test_features_equal_the_written_out_reference(name: str) -> None:
    network, inputs = networks()[name], texts()
    features = network(inputs)
    reference = written_out_cnn if name == "cnn" else written_out_bag
    expected = [
        reference(network.state_dict(), words[:length].tolist())
        for words, length in zip(inputs["tokens"], inputs["lengths"], strict=True)
    ]
    assert features.shape == (len(LENGTHS), network.out_features)
    assert features.abs().sum() > 0
    torch.testing.assert_close(
        features, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_out_features_counts_widths_and_the_last_layer() -> None:
    assert {name: networks()[name].out_features for name in ("cnn", "bag", "dan")} == {
        "cnn": 15,
        "bag": 3,
        "dan": 6,
    }
    assert TextCNN(VOCAB).out_features == 300
    assert BagOfWords(VOCAB).out_features == 128


@pytest.mark.parametrize("kind", [TextCNN, BagOfWords, BiLSTM, RelationCNN, TextTransformer])
def test_a_seed_draws_the_words_vectors_first(kind: type[TextBackbone]) -> None:
    torch.manual_seed(3)
    expected = torch.nn.Embedding(VOCAB, 8).weight
    if kind is not TextTransformer:  # whose vectors are standard normal
        torch.nn.init.uniform_(expected, -0.25, 0.25)
    torch.manual_seed(3)
    network = kind(VOCAB, embedding_dim=8)
    assert torch.equal(network.embedding.weight, expected)
    assert next(iter(network.state_dict())) == "embedding.weight"


def test_padding_changes_no_feature(network: Backbone) -> None:
    inputs = texts()
    longer = torch.zeros(len(LENGTHS), PLACES + 9, dtype=torch.int64)
    longer[:, :PLACES] = inputs["tokens"]
    features = network(inputs)
    padded = network({**inputs, "tokens": longer})
    torch.testing.assert_close(padded, features, rtol=0, atol=1e-14)
    # it is the length that tells where a text ends, whatever stands behind
    junk = longer.clone()
    junk[:, PLACES:] = 7
    torch.testing.assert_close(network({**inputs, "tokens": junk}), features, rtol=0, atol=1e-14)


def test_the_padding_vector_gets_no_gradient(network: Backbone) -> None:
    network(texts()).sum().backward()
    gradient = network.get_parameter("embedding.weight").grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[1:].any()


def test_a_text_without_words_has_finite_features_and_gradients(network: Backbone) -> None:
    features = network(texts(lengths=[0, 3]))
    features.sum().backward()
    assert features.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def adapted_loss(
    network: Backbone, weights: dict[str, Tensor], inputs: dict[str, Tensor]
) -> Tensor:
    """A query loss after one inner step: its gradient needs second derivatives."""

    def loss(weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
        features: Tensor = functional_call(network, weights, (inputs,))
        return features.tanh().square().mean() + features.mean().square()

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        gradients = grad(loss)(weights, inputs)
        stepped = {name: weight - 0.1 * gradients[name] for name, weight in weights.items()}
        return loss(stepped, inputs)


def test_second_derivatives_equal_finite_differences(network: Backbone) -> None:
    inputs = texts()
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    gradients = grad(lambda w: adapted_loss(network, w, inputs))(weights)
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        step = 1e-6 * torch.randn(weight.shape, dtype=torch.float64, generator=generator)
        up, down = (
            adapted_loss(network, {**weights, name: weight + sign * step}, inputs)
            for sign in (1, -1)
        )
        torch.testing.assert_close(
            (up - down) / 2, (gradients[name] * step).sum(), rtol=1e-5, atol=1e-13
        )


@pytest.mark.parametrize("name", ["cnn", "bag", "dan"])
def test_vmap_over_weights_and_texts_equals_a_loop(name: str) -> None:
    # the transformer's LayerNorm needs the engine for it: see test_text_transformer.py
    network = networks()[name]
    episodes = [texts(lengths) for lengths in (LENGTHS, (3, 3, 1, 6), (7, 2, 4, 1))]
    inputs = {
        key: torch.stack([episode[key] for episode in episodes]) for key in ("tokens", "lengths")
    }
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: (
            p.detach() + 0.1 * torch.randn((3, *p.shape), dtype=torch.float64, generator=generator)
        )
        for name, p in network.named_parameters()
    }

    def meta_gradient(weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        gradients: dict[str, Tensor] = grad(lambda w: adapted_loss(network, w, inputs))(weights)
        return gradients

    together = vmap(meta_gradient)(weights, inputs)
    for i, episode in enumerate(episodes):
        alone = meta_gradient({name: weight[i] for name, weight in weights.items()}, episode)
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name][i], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [TextCNN, BagOfWords])
def test_dropout_acts_in_training_only(kind: type[TextCNN] | type[BagOfWords]) -> None:
    torch.manual_seed(0)
    network = kind(VOCAB, dropout=0.5)
    inputs = texts()
    kept = network.eval()(inputs)
    assert torch.equal(network(inputs), kept)
    dropped = network.train()(inputs)
    survivors = dropped != 0
    assert 0.3 < (~survivors[kept != 0]).double().mean() < 0.7
    torch.testing.assert_close(dropped[survivors], 2 * kept[survivors])


@pytest.mark.parametrize("kind", [TextCNN, BagOfWords, TextTransformer, BiLSTM])
@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (torch.zeros(2, 3), "a tensor"),
        ({"lengths": torch.ones(2)}, r"a dict of \['lengths'\]"),
        ({"tokens": torch.ones(2, 3)}, r"a dict of \['tokens'\]"),
    ],
)
def test_inputs_that_are_no_text_are_refused(
    kind: type[Backbone], inputs: Tensor | dict[str, Tensor], found: str
) -> None:
    with pytest.raises(
        FewshotError, match=rf"reads a dict of 'tokens' and 'lengths', got {found}; use a"
    ):
        kind(VOCAB)(inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"vocab_size": 1},
            "vocab_size is 1: padding and unknown words have ids too; set vocab_size >= 2",
        ),
        ({"embedding_dim": 0}, "embedding_dim is 0; set embedding_dim >= 1"),
        ({"dropout": 1.0}, r"dropout is 1.0; set dropout in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout is -0.1; set dropout in \[0, 1\)"),
    ],
)
@pytest.mark.parametrize("kind", [TextCNN, BagOfWords, TextTransformer, BiLSTM])
def test_arguments_out_of_range_are_refused(
    kind: type[Backbone], arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(FewshotError, match=f"^{message}$"):
        kind(**{"vocab_size": VOCAB, **arguments})


def test_sizes_of_layers_out_of_range_are_refused() -> None:
    with pytest.raises(FewshotError, match=r"^filters is 0; set filters >= 1$"):
        TextCNN(VOCAB, filters=0)
    with pytest.raises(FewshotError, match=r"^widths\[1\] is 0; set widths\[1\] >= 1$"):
        TextCNN(VOCAB, widths=[3, 0])
    with pytest.raises(FewshotError, match=r"^widths is empty; name at least one kernel width"):
        TextCNN(VOCAB, widths=[])
    with pytest.raises(
        FewshotError, match=r"^hidden_features\[0\] is -1; set hidden_features\[0\] >= 1$"
    ):
        BagOfWords(VOCAB, hidden_features=[-1])
