"""fewshot: few-shot learning and meta-learning on PyTorch Lightning."""

from importlib.metadata import version

__version__ = version("fewshot")

from fewshot.backbones import MLP, Backbone, Conv4
from fewshot.datamodules import (
    GlyphsDataModule,
    HarmonicDataModule,
    ImageFolderDataModule,
    OmniglotDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.episodes import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import MAML, MetaLearner, PrototypicalNetwork

__all__ = [
    "MAML",
    "MLP",
    "Backbone",
    "Conv4",
    "Episode",
    "Examples",
    "FewshotError",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageFolderDataModule",
    "MetaLearner",
    "OmniglotDataModule",
    "PrototypicalNetwork",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "__version__",
]
