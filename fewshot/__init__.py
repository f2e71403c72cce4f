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
    RFS,
    Baseline,
    BaselinePlusPlus,
    FineTune,
    MAMLPlusPlus,
    MetaLearner,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
    SimpleShot,
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
    "RFS",
    "Attack",
    "Backbone",
    "BagOfWords",
    "Baseline",
    "BaselinePlusPlus",
    "CLINC150DataModule",
    "Conv4",
    "Episode",
    "Examples",
    "FewshotError",
    "FineTune",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageFolderDataModule",
    "MAMLPlusPlus",
    "MetaLearner",
    "MetaSGD",
    "OmniglotDataModule",
    "Pixels",
    "ProtoMAML",
    "PrototypicalNetwork",
    "Reptile",
    "ResNet12",
    "SimpleShot",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextCNN",
    "TfIdf",
    "WeightedBag",
    "__version__",
]
