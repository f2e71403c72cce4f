"""Benchmarks, one LightningDataModule each. To add one: write the file, import its class here."""

from fewshot.datamodules.base import ClassificationDataModule, EpisodicDataModule, ImageDataModule
from fewshot.datamodules.clinc150 import CLINC150DataModule
from fewshot.datamodules.fewrel import FewRelDataModule
from fewshot.datamodules.functions import (
    HarmonicDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.datamodules.gaussian_process import GaussianProcessDataModule
from fewshot.datamodules.glyphs import GlyphsDataModule
from fewshot.datamodules.image_folder import ImageFolderDataModule
from fewshot.datamodules.omniglot import OmniglotDataModule
from fewshot.datamodules.snips import SNIPSDataModule
from fewshot.datamodules.text import TextDataModule

__all__ = [
    "CLINC150DataModule",
    "ClassificationDataModule",
    "EpisodicDataModule",
    "FewRelDataModule",
    "GaussianProcessDataModule",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "OmniglotDataModule",
    "SNIPSDataModule",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextDataModule",
]
