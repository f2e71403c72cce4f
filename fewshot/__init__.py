"""fewshot: few-shot learning and meta-learning on PyTorch Lightning."""

from importlib.metadata import version

__version__ = version("fewshot")

from fewshot.attacks import FGSM, PGD, Attack
from fewshot.backbones import MLP, Backbone, BagOfWords, Conv4, Pixels, ResNet12, TextCNN, TfIdf, WeightedBag
from fewshot.datamodules import (
    CLINC150DataModule,
    GaussianProcessDataModule,
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
    ANP,
    BOIL,
    CAVIA,
    CNP,
    FOMAML,
    IMAML,
    MAML,
    MANN,
    SNAIL,
    GaussianProcess,
    MAMLPlusPlus,
    MetaLearner,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)

__all__ = [
    "ADML",
    "ANIL",
    "ANP",
    "BOIL",
    "CAVIA",
    "CNP",
    "FGSM",
    "FOMAML",
    "IMAML",
    "MAML",
    "MANN",
    "MLP",
    "PGD",
    "SNAIL",
    "Attack",
    "Backbone",
    "BagOfWords",
    "CLINC150DataModule",
    "Conv4",
    "Episode",
    "Examples",
    "FewshotError",
    "GaussianProcess",
    "GaussianProcessDataModule",
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
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextCNN",
    "TfIdf",
    "WeightedBag",
    "__version__",
]
