"""Almost no inner loop, and its opposite.

Raghu et al., arXiv:1909.09157, and Oh et al., arXiv:2008.08882.
"""

from typing import Any

from torch import nn

from fewshot.backbones.base import Backbone
from fewshot.learners.optimization.maml import MAML


class ANIL(MAML):
    """ANIL: MAML whose inner loop changes the head alone; the body runs once an episode.

    Paper: arXiv:1909.09157.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `MAML`, without `adapt`.
    """

    settles = ("adapt",)

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, adapt="head", **kwargs)


class BOIL(MAML):
    """BOIL: MAML whose inner loop changes the body alone, so that features must change.

    Paper: arXiv:2008.08882.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `MAML`, without `adapt`.
    """

    settles = ("adapt",)

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, adapt="body", **kwargs)
