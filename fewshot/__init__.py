"""fewshot: few-shot learning and meta-learning on PyTorch Lightning."""

from importlib.metadata import version

__version__ = version("fewshot")

from fewshot.backbones import MLP, Backbone, BagOfWords, Conv4, Pixels, TextCNN, TfIdf, WeightedBag
from fewshot.datamodules import (
    CLINC150DataModule,
    GlyphsDataModule,
    HarmonicDataModule,
    ImageFolderDataModule,
    OmniglotDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.episodes import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, FOMAML, MAML, MetaLearner, MetaSGD, ProtoMAML, PrototypicalNetwork

__all__ = [
    "ANIL",
    "BOIL",
    "FOMAML",
    "MAML",
    "MLP",
    "Backbone",
    "BagOfWords",
    "CLINC150DataModule",
    "Conv4",
    "Episode",
    "Examples",
    "FewshotError",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageFolderDataModule",
    "MetaLearner",
    "MetaSGD",
    "OmniglotDataModule",
    "Pixels",
    "ProtoMAML",
    "PrototypicalNetwork",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextCNN",
    "TfIdf",
    "WeightedBag",
    "__version__",
]
