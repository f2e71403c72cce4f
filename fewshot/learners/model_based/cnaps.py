"""Conditional neural adaptive processes (Requeima et al., arXiv:1906.07697)."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from fewshot.arguments import NonNegative
from fewshot.backbones.base import Backbone, features_of
from fewshot.backbones.conv4 import Conv4
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode
from fewshot.errors import FewshotError
from fewshot.hyperparameters import build
from fewshot.learners.embedding import EmbeddingLearner, at_least_float32, full_precision
from fewshot.learners.metric.classes import class_means
from fewshot.learners.model_based.film import (
    Film,
    FilmGenerator,
    FilmIn,
    features_under,
    modulate,
    modulated_norms,
)
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification


class FittedTo(NamedTuple):
    """A network fitted to a task: its scales and shifts, and the classifier of its features."""

    film: Film
    classifier: Any


class ConditionalLearner(EmbeddingLearner):
    """A frozen, pre-trained network that another fits to each task, by a forward pass over support.

    An encoder makes a vector of each support image; their mean tells the task. From it come a scale
    and a shift for every channel of each batch normalisation of the backbone (FiLM). A subclass
    says how features are classified.

    The backbone's weights and running averages are never changed: it comes with weights
    (`TorchvisionBackbone`), or takes those of any learner's checkpoint. What is trained are the
    encoder and what generates the modulation. Takes episodes of any way; they are run one by one,
    as each has a network of its own.

    Args:
        backbone: the pre-trained network from inputs to features, with batch normalisation.
        encoder: the network from a support image to its vector; None means `Conv4` with the mean of
            its last map (the authors' code has a fifth block like it).
        penalty: weight of the squared multipliers of the modulation in the loss.
        film_in: which batch normalisations are modulated: `all`, or those on the main path of
            residual `blocks`, as in the authors' code, which leaves the stem's and the shortcuts'.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: the task is no classification, the backbone has no batch normalisation, or
            `batchnorm` is not inductive.
    """

    takes = Classification
    fixed_arguments = ("feature_memory", "feature_cache")

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        encoder: Backbone | None = None,
        penalty: NonNegative = 0.001,
        film_in: FilmIn = "all",
        **kwargs: Any,
    ) -> None:
        # no features are held: each episode has a network of its own
        super().__init__(backbone, feature_memory=0.0, feature_cache=False, **kwargs)
        name = type(self).__name__
        if self.batchnorm != "inductive":
            raise FewshotError(
                f"{name} normalises by the running averages of its backbone; set batchnorm:"
                " inductive"
            )
        self.penalty = penalty
        self.backbone.requires_grad_(False)
        norms = modulated_norms(self.backbone, film_in)
        self.encoder: Backbone = (
            self._encoder() if encoder is None else build(encoder, Backbone, "encoder")
        )
        self.generator = FilmGenerator(norms, self.encoder.out_features)

    def _encoder(self) -> Backbone:
        facts = [getattr(self.backbone, fact, None) for fact in ("in_channels", "image_size")]
        if not all(isinstance(fact, int) for fact in facts):
            raise FewshotError(
                f"{type(self.backbone).__name__} is no network on images; give an encoder of its"
                " inputs"
            )
        # ints, as was seen
        return Conv4(facts[0], facts[1], output="mean")  # type: ignore[arg-type]

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """A classifier from support features (S, D) and labels (S,) in 0..`way`-1."""

    @abstractmethod
    def compare(self, classifier: Any, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, D)."""

    def features_of(self, film: Film, inputs: Inputs) -> Tensor:
        """Features (n, D) of inputs (n, ...) by the modulated backbone.

        It keeps its running averages.
        """
        with evaluation_mode(self.backbone):
            return at_least_float32(features_under(self.backbone, film, inputs))

    def fitted(self, support: Examples) -> FittedTo:
        """The network and the classifier for one support set."""
        encoded = features_of(self.encoder, support.inputs)
        film = modulate(self.backbone, self.generator(at_least_float32(encoded).mean(0)))
        features = self.features_of(film, support.inputs)
        with full_precision(features):
            return FittedTo(
                film, self.fit(features, support.targets, int(support.targets.max()) + 1)
            )

    def outputs(self, fitted: FittedTo, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        features = self.features_of(fitted.film, inputs)
        with full_precision(features):
            return self.compare(fitted.classifier, features)

    def adapt(self, support: Examples) -> FittedTo:
        """The network and the classifier for one support set, of any way."""
        with evaluation_mode(self):
            return self.fitted(support)

    def predict(self, adapted: FittedTo, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        with evaluation_mode(self):
            return self.outputs(adapted, inputs)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Fit the network to each episode and judge it."""
        for i in range(count(episodes)):
            support, query = episode(episodes, i)
            outcome = self.judged(
                self.outputs(self.fitted(support), query.inputs)[None], query.targets[None]
            )
            yield (
                outcome._replace(loss=outcome.loss + self.penalty * self.generator.penalty())
                if training
                else outcome
            )


class CNAPs(ConditionalLearner):
    """CNAPs: a frozen network fitted to each task by FiLM, with a generated linear classifier.

    Two perceptrons make a class's weights and its bias of the mean of its support features; in the
    authors' code the bias's has hidden layers of one unit. Of the paper's two forms this is the one
    whose FiLM layers look at the encoded task alone. Paper: arXiv:1906.07697.

    Args:
        backbone: the pre-trained network from inputs to features, with batch normalisation.
        **kwargs: arguments of `ConditionalLearner`.
    """

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.weight = Generator(self.features, self.features)
        self.bias = Generator(self.features, 1)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """Weights (N, D) and biases (N,)."""
        means = class_means(features, targets, way)
        return self.weight(means) + means, self.bias(means)[:, 0]

    def compare(self, classifier: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
        """Logits (n, N)."""
        weight, bias = classifier
        return features @ weight.T + bias


class Generator(nn.Sequential):
    """A perceptron of three layers with ELU."""

    def __init__(self, features: int, outputs: int) -> None:
        layers = [nn.Linear(features, features), nn.ELU(), nn.Linear(features, features), nn.ELU()]
        super().__init__(*layers, nn.Linear(features, outputs))
