"""Tasks between training tasks: MLTI, by CutMix or by mixing features (arXiv:2106.02695)."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.mixing import Mixture
from fewshot.episodes.types import Episode, Examples, Inputs, MetaBatch, episode, stack
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.pairing import box, check, check_regression, partners
from fewshot.tasks import Classification, Regression

OTHER = 0.75
"""The probability that an episode is mixed with the next; otherwise it is mixed with itself."""
ADDRESS = 5  # behind the seed and an episode's number: no other generator has three numbers so

Mlti: TypeAlias = bool | Literal["cutmix", "features"]
"""Whether and how tasks are mixed; true: images of classes by CutMix, all else by features."""


class InterpolatesTasks(MetaLearner):
    """A learner that may train on mixtures of a meta-batch's tasks.

    MLTI (arXiv:2106.02695), which helps where training tasks are few: each episode is mixed with
    the next of the meta-batch (of the rank's share of it), or with probability 1/4 with itself.
    CutMix pastes a box of each image's partner. Else inputs are mixed, or what a drawn layer reads,
    lam of one and 1 - lam of the other, lam ~ Beta(2, 2). A class's partner is a class drawn for
    it, whose labels are not used; in regression examples are paired as they come.

    Args:
        backbone: the network from inputs to features.
        mlti: train on mixtures of a meta-batch's tasks (MLTI, arXiv:2106.02695): `cutmix` pastes
            boxes of images, `features` mixes at a layer drawn for each episode, and in regression
            targets too; `true` is `cutmix` for images of classes, else `features`.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: the learner or its task has nothing that can be mixed so.
    """

    mixes_features: ClassVar[bool] = True
    """Whether what it trains on may be mixed at a layer of its backbone."""

    def __init__(self, backbone: Backbone | nn.Module, mlti: Mlti = False, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if mlti:
            self._check_mlti(mlti)
        self.mlti = mlti

    def _check_mlti(self, mlti: Mlti) -> None:
        name, regression = type(self).__name__, isinstance(self.task, Regression)
        if self.trains_on != "episodes":
            raise FewshotError(f"{name} trains on no episodes, which mlti mixes; leave mlti out")
        if not isinstance(self.task, Classification | Regression):
            raise FewshotError(
                "mlti mixes images or vectors of classes, or of functions, but the benchmark's task"
                f" is {self.task.kind}; leave mlti out"
            )
        if mlti == "cutmix" and regression:
            raise FewshotError(
                "mlti is cutmix, which pastes boxes of images of classes, but the benchmark's task"
                " is regression; set mlti: features"
            )
        if not self.mixes_features and (mlti == "features" or regression):
            raise FewshotError(
                f"mlti mixes features, which {name} does not let it; leave mlti out"
                + ("" if regression else ", or set mlti: cutmix")
            )

    @abstractmethod
    def layers_to_mix(self, episodes: Episode) -> int:
        """How many layers there are of which one may be drawn, for stacked `episodes` to come.

        Raises:
            FewshotError: there are none.
        """

    def as_batch(self, batch: Any) -> Any:
        """What a loader gave, its episodes mixed where `mlti` says so."""
        batch = super().as_batch(batch)
        if not self.mlti:
            return batch
        rngs = self.episode_generators(batch, ADDRESS)
        if self._cuts(batch):
            return mixed(batch, rngs)
        regression = isinstance(self.task, Regression)
        (check_regression if regression else check)(batch)
        return mixed_inside(batch, rngs, self.layers_to_mix(batch.stacked), regression)

    def _cuts(self, batch: MetaBatch) -> bool:
        """Whether a meta-batch is mixed by CutMix."""
        if self.mlti is not True:
            return self.mlti == "cutmix"
        first = batch.parts[0].query.inputs
        images = isinstance(first, Tensor) and first.dim() == 5
        return images and isinstance(self.task, Classification)

    def episode_generators(self, batch: MetaBatch, address: int) -> list[np.random.Generator]:
        """A generator for each episode of a training meta-batch, by its number and an address."""
        if batch.numbers is not None:
            numbers = batch.numbers.tolist()
        else:  # a loader of one's own: the place in the run tells episodes apart
            trainer, size = self.trainer, batch.size
            first = (trainer.global_step * trainer.world_size + trainer.global_rank) * size
            numbers = list(range(first, first + size))
        return [np.random.default_rng([self.seed, n, address]) for n in numbers]


# ---------------------------------------------------------------------- CutMix


def mixed(batch: MetaBatch, rngs: list[np.random.Generator]) -> MetaBatch:
    """Each of B episodes mixed with the next or with itself, as its generator says.

    Raises:
        FewshotError: the episodes differ in shape or way, or their inputs are no images.
    """
    check(batch, images=True)
    stacked = batch.stacked
    tasks = [episode(stacked, i) for i in range(batch.size)]
    return batch._replace(
        parts=[
            stack(
                [
                    cut_and_paste(rng, one, following if rng.random() < OTHER else one)
                    for rng, one, following in zip(rngs, tasks, [*tasks[1:], tasks[0]], strict=True)
                ]
            )
        ]
    )


def cut_and_paste(rng: np.random.Generator, first: Episode, second: Episode) -> Episode:
    """The first task with a box of area 1 - lam of the second's images, lam ~ Beta(2, 2).

    Class j is joined by a class of the second drawn for it; the box is one for support and query,
    its centre anywhere, cut off at the border. The labels are the first's.
    """
    order = torch.from_numpy(rng.permutation(int(first.support.targets.max()) + 1))
    images = first.query.inputs
    assert isinstance(images, Tensor)
    rows, columns = box(rng, rng.beta(2, 2), *images.shape[-2:])
    return Episode(
        *(_pasted(*pair, order, rows, columns) for pair in zip(first, second, strict=True))
    )


def _pasted(
    first: Examples, second: Examples, order: Tensor, rows: slice, columns: slice
) -> Examples:
    """Examples of class j with the box of as many examples of class order[j]."""
    assert isinstance(first.inputs, Tensor)
    assert isinstance(second.inputs, Tensor)
    partner = partners(first.targets, second.targets, order)
    images = first.inputs.clone()
    images[..., rows, columns] = second.inputs[partner][..., rows, columns]
    return first._replace(inputs=images)


# ---------------------------------------------------------------------- features


def mixed_inside(
    batch: MetaBatch, rngs: Sequence[np.random.Generator], layers: int, regression: bool
) -> MetaBatch:
    """Each of B episodes with the next, or itself, to be mixed in at a layer drawn for it.

    Support and query are mixed alike, lam of the one and 1 - lam of the other, lam ~ Beta(2, 2).

    Args:
        batch: the episodes.
        rngs: a generator for each of them.
        layers: how many there are.
        regression: pair examples as they come, and mix their targets; else class j is joined by a
            class drawn for it, and keeps its label.
    """
    episodes = batch.stacked
    size, device = batch.size, episodes.query.targets.device
    way = 0 if regression else int(episodes.support.targets.max()) + 1
    others = [(i + 1) % size if rng.random() < OTHER else i for i, rng in enumerate(rngs)]
    orders = [torch.from_numpy(rng.permutation(way)) for rng in rngs]
    shares = torch.tensor([rng.beta(2, 2) for rng in rngs], dtype=torch.float64)
    places = torch.tensor([int(rng.integers(layers)) for rng in rngs])
    share, place, other = shares.to(device), places.to(device), torch.tensor(others).to(device)

    def part(examples: Examples) -> Examples:
        inputs, targets, _ = examples
        assert isinstance(inputs, Tensor)  # `check` has seen to it
        second = targets[other]
        if regression:
            partner = torch.arange(targets.shape[1], device=device).expand(size, -1)
            weight = share.to(targets).view(-1, *[1] * (targets.dim() - 1))
            targets = weight * targets + (1 - weight) * second
        else:
            rows = zip(targets, second, orders, strict=True)
            partner = torch.stack([partners(*row) for row in rows])
        mixture = Mixture(inputs, inputs[other], partner, share.to(inputs), place)
        # what a network reads as any inputs: `Network.features` and `embed_meta_batch` see to it
        return examples._replace(inputs=cast(Inputs, mixture), targets=targets)

    return batch._replace(parts=[Episode(*map(part, episodes))])
