"""fewshot: few-shot learning and meta-learning on PyTorch Lightning."""

from importlib.metadata import version

__version__ = version("fewshot")

from fewshot.attacks import FGSM, PGD, Attack
from fewshot.backbones import (
    MLP,
    WRN28_10,
    Backbone,
    BagOfWords,
    BiLSTM,
    Conv4,
    HuggingFaceEncoder,
    Pixels,
    ResNet12,
    TextCNN,
    TextTransformer,
    TfIdf,
    TorchvisionBackbone,
    WeightedBag,
)
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
    "BOIL",
    "CAVIA",
    "FGSM",
    "FOMAML",
    "IMAML",
    "MAML",
    "MLP",
    "PGD",
    "WRN28_10",
    "Attack",
    "Backbone",
    "BagOfWords",
    "BiLSTM",
    "CLINC150DataModule",
    "Conv4",
    "Episode",
    "Examples",
    "FewshotError",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "HuggingFaceEncoder",
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
    "TextTransformer",
    "TfIdf",
    "TorchvisionBackbone",
    "WeightedBag",
    "__version__",
]
