"""TF-IDF and the bag that begins as TF-IDF, against scikit-learn and written-out sums."""

import random
import string

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from fewshot.backbones import Backbone, TfIdf, WeightedBag
from fewshot.backbones.tf_idf import inverse_document_frequencies
from fewshot.datasets.reading.words import build_vocabulary, document_frequencies, encode
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners import PrototypicalNetwork

FREQUENCIES = [0, 0, 4, 2, 1]
INPUTS = {
    "tokens": torch.tensor([[2, 3, 2, 0], [1, 4, 1, 3], [1, 1, 0, 0]]),
    "lengths": torch.tensor([3, 4, 2]),
}


def generated_texts(texts: int, words: str, seed: int) -> list[list[str]]:
    """Texts of 1 to 12 words, some words much more frequent than others."""
    rng = random.Random(seed)
    weights = [1 / (1 + i) for i in range(len(words))]
    return [rng.choices(words, weights, k=rng.randint(1, 12)) for _ in range(texts)]


def as_scikit_learn_has_it(train: list[list[str]], texts: list[list[str]]) -> np.ndarray:
    # scikit-learn's sees the training texts alone, too
    vectorizer = TfidfVectorizer(analyzer=list).fit(train)
    return np.asarray(vectorizer.transform(texts).todense())


def test_the_features_are_scikit_learns() -> None:
    train = generated_texts(60, string.ascii_lowercase[:16], seed=0)
    texts = generated_texts(40, string.ascii_lowercase, seed=1)  # ten words are new
    vocabulary = build_vocabulary(train)
    network = TfIdf(len(vocabulary), document_frequencies(train, vocabulary), len(train))
    features = network(encode(texts, vocabulary))
    assert features.shape == (40, network.out_features)
    assert not list(network.parameters())
    # scikit-learn's: the names'
    order = [vocabulary.index(word) for word in sorted(vocabulary[2:])]
    torch.testing.assert_close(
        features[:, order],
        torch.from_numpy(as_scikit_learn_has_it(train, texts)).float(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_learner_is_the_nearest_centroid() -> None:
    train = generated_texts(200, string.ascii_lowercase, seed=0)
    # a class speaks with its own preferences
    texts = [
        text
        for c in range(4)
        for text in generated_texts(20, string.ascii_lowercase[c * 3 :], seed=10 + c)
    ]
    labels = torch.arange(4).repeat_interleave(20)
    vocabulary = build_vocabulary(train)
    network = TfIdf(len(vocabulary), document_frequencies(train, vocabulary), len(train))
    learner = PrototypicalNetwork(
        network, distance="cosine", task={"kind": "classification", "way": 4}
    )
    inputs, support = encode(texts, vocabulary), torch.arange(80) % 20 < 5

    def part(mask: Tensor) -> dict[str, Tensor]:
        return {name: tensor[mask] for name, tensor in inputs.items()}

    logits = learner.predict(
        learner.adapt(Examples(part(support), labels[support])), part(~support)
    )
    vectors = as_scikit_learn_has_it(train, texts)
    centroids = NearestCentroid().fit(vectors[support.numpy()], labels[support].numpy()).centroids_
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    # of unit vectors: the nearest by cosine and by distance
    expected = vectors[(~support).numpy()] @ centroids.T
    torch.testing.assert_close(logits, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-6)
    assert 0.4 < (logits.argmax(1) == labels[~support]).float().mean() < 1


def test_the_unknown_does_not_count() -> None:
    assert inverse_document_frequencies(FREQUENCIES, 4)[:2].tolist() == [0, 0]
    features = TfIdf(5, FREQUENCIES, 4)(INPUTS)
    assert not features[:, :2].any()
    assert not features[2].any()  # nothing but unknown words: no direction at all, and no nan
    assert not WeightedBag(5, FREQUENCIES, 4, 3)(INPUTS)[2].any()


def test_the_bag_is_the_weighted_sum_of_the_vectors() -> None:
    bag = WeightedBag(5, FREQUENCIES, 4, out_features=3).double().eval()
    torch.nn.init.normal_(bag.log_weights)
    vectors, weights = bag.vectors.weight, bag.log_weights.exp()
    expected = torch.stack(
        [
            2 * weights[2] * vectors[2] + weights[3] * vectors[3],
            weights[4] * vectors[4] + weights[3] * vectors[3],
        ]
    )
    torch.testing.assert_close(bag(INPUTS)[:2], expected, rtol=0, atol=1e-12)


def test_the_gradients_of_the_bag_equal_finite_differences() -> None:
    bag = WeightedBag(5, FREQUENCIES, 4, out_features=3, dropout=0).double()
    names, values = zip(*bag.named_parameters(), strict=True)

    def features(*values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(
            bag, dict(zip(names, values, strict=True)), (INPUTS,)
        )
        return found

    assert torch.autograd.gradcheck(features, values)


def test_the_bag_begins_as_tf_idf() -> None:
    torch.manual_seed(0)
    train = generated_texts(60, string.ascii_lowercase, seed=0)
    vocabulary = build_vocabulary(train)
    arguments = (len(vocabulary), document_frequencies(train, vocabulary), len(train))
    inputs = encode(train, vocabulary)
    cosines = [
        torch.nn.functional.normalize(network.eval()(inputs), dim=-1)
        for network in (TfIdf(*arguments), WeightedBag(*arguments, out_features=20_000))
    ]
    exact, random_projection = (features @ features.T for features in cosines)
    assert exact.std() > 0.2
    assert (exact - random_projection).abs().max() < 5 / 20_000**0.5


def test_dropout_leaves_terms_out_in_training_only() -> None:
    torch.manual_seed(0)
    bag = WeightedBag(5, FREQUENCIES, 4, dropout=0.5)
    one = {"tokens": torch.full((400, 1), 3), "lengths": torch.ones(400, dtype=torch.int64)}
    kept = bag.eval()(one)
    assert torch.equal(kept, bag(one))
    dropped = bag.train()(one)
    there = dropped.any(1)
    assert 0.4 < there.float().mean() < 0.6
    torch.testing.assert_close(dropped[there], 2 * kept[there])


@pytest.mark.parametrize("kind", [TfIdf, WeightedBag])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (4, FREQUENCIES, 4),
            "document_frequencies has 5 ids, vocab_size is 4; take both from the benchmark",
        ),
        (
            (1, [0], 4),
            "document_frequencies has 1 ids; give one for each of vocab_size, 2 at least",
        ),
        (
            (5, FREQUENCIES, 3),
            "document_frequencies are 0 to 4 of 3 documents; they must be between 0 and documents",
        ),
        (
            (3, [0, 0, -1], 3),
            "document_frequencies are -1 to 0 of 3 documents; they must be between 0 and documents",
        ),
    ],
)
def test_frequencies_that_do_not_fit_are_refused(
    kind: type[Backbone], arguments: tuple[int, list[int], int], message: str
) -> None:
    with pytest.raises(FewshotError, match=f"^{message}$"):
        kind(*arguments)


def test_other_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(FewshotError, match=r"^out_features is 0; set out_features >= 1$"):
        WeightedBag(5, FREQUENCIES, 4, out_features=0)
    with pytest.raises(FewshotError, match=r"^dropout is 1.0; set dropout in \[0, 1\)$"):
        WeightedBag(5, FREQUENCIES, 4, dropout=1.0)


@pytest.mark.parametrize("kind", [TfIdf, WeightedBag])
def test_inputs_that_are_no_text_are_refused(kind: type[Backbone]) -> None:
    with pytest.raises(FewshotError, match=r"reads a dict of 'tokens' and 'lengths', got a tensor"):
        kind(5, FREQUENCIES, 4)(torch.zeros(2, 3))


def test_a_normalised_bag_has_unit_length() -> None:
    plain = WeightedBag(5, FREQUENCIES, 4, out_features=3).double().eval()
    unit = WeightedBag(5, FREQUENCIES, 4, out_features=3, normalise=True).double().eval()
    unit.load_state_dict(plain.state_dict())
    features = plain(INPUTS)
    torch.testing.assert_close(
        unit(INPUTS)[:2], features[:2] / (features[:2] ** 2).sum(1, keepdim=True).sqrt()
    )
    assert not unit(INPUTS)[2].any()  # unknown terms alone: no direction, and no division by zero
