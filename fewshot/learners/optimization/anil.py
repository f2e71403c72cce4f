"""Almost no inner loop, and its opposite.

Raghu et al., arXiv:1909.09157, and Oh et al., arXiv:2008.08882.
"""

from typing import Any

from torch import nn

from fewshot.backbones.base import Backbone
from fewshot.errors import FewshotError
from fewshot.learners.optimization.frozen_body import FrozenBody
from fewshot.learners.optimization.maml import MAML


class ANIL(FrozenBody, MAML):
    """ANIL: MAML whose inner loop changes the head alone; the body runs once an episode.

    A frozen pre-trained body runs once an example: its features are kept, and the head is what is
    learned. Paper: arXiv:1909.09157.

    Args:
        backbone: the network from inputs to features.
        embed_together: have the body read an episode's support and query in one pass, in training
            and evaluation: its batch normalisation then takes the statistics of both. learn2learn's
            ANIL does so; MAML and this class by default normalise each by its own. `adapt` and
            `predict` see one of them at a time, and embed them apart always.
        **kwargs: arguments of `MAML`, without `adapt`, and of `EmbedsOnce`.

    Raises:
        FewshotError: `embed_together` where it contradicts another argument.
    """

    acts = False
    fixed_arguments = ("adapt",)

    def __init__(
        self, backbone: Backbone | nn.Module, embed_together: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(backbone, adapt="head", **kwargs)
        if embed_together and self.batchnorm != "transductive":
            raise FewshotError(
                "embed_together lets queries see one another; set batchnorm: transductive, or"
                " embed_together: false"
            )
        if embed_together and self.attack is not None:
            raise FewshotError(
                "embed_together has the support see attacked queries; leave attack out, or set"
                " embed_together: false"
            )
        if embed_together and (self.metamix or self.mlti):
            raise FewshotError(
                "embed_together reads an episode in one pass, but metamix and mlti mix it in"
                " several; leave those out, or set embed_together: false"
            )
        self.embed_together = embed_together

    def augmented(self) -> bool:
        """Whether training's inputs are changed at random, which mixing does."""
        return bool(self.mlti) or self.metamix or super().augmented()


class BOIL(MAML):
    """BOIL: MAML whose inner loop changes the body alone, so that features must change.

    Paper: arXiv:2008.08882.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `MAML`, without `adapt`.
    """

    takes_noise = True
    fixed_arguments = ("adapt",)

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, adapt="body", **kwargs)
