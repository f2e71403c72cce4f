"""fewshot: few-shot learning and meta-learning on PyTorch Lightning."""

from importlib.metadata import version

__version__ = version("fewshot")

from fewshot.attacks import FGSM, PGD, Attack
from fewshot.backbones import MLP, Backbone, BagOfWords, Conv4, Pixels, ResNet12, TextCNN, TfIdf, WeightedBag
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
from fewshot.learners import (
    ADML,
    ANIL,
    BOIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    R2D2,
    MAMLPlusPlus,
    MatchingNetwork,
    MetaLearner,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    RelationNetwork,
    Reptile,
    SiameseNetwork,
)

__all__ = [
    "ADML",
    "ANIL",
    "BOIL",
    "CAVIA",
    "FGSM",
    "FOMAML",
    "IMAML",
    "MAML",
    "MLP",
    "PGD",
    "R2D2",
    "Attack",
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
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaLearner",
    "MetaSGD",
    "OmniglotDataModule",
    "Pixels",
    "ProtoMAML",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "ResNet12",
    "SiameseNetwork",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextCNN",
    "TfIdf",
    "WeightedBag",
    "__version__",
]
