"""Benchmarks, one LightningDataModule each. To add one: write the file, import its class here."""

from fewshot.datamodules.base import ClassificationDataModule, EpisodicDataModule, ImageDataModule
from fewshot.datamodules.clinc150 import CLINC150DataModule
from fewshot.datamodules.fewglue import FewGLUEDataModule
from fewshot.datamodules.functions import (
    HarmonicDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.datamodules.gaussian_process import GaussianProcessDataModule
from fewshot.datamodules.glyphs import GlyphsDataModule
from fewshot.datamodules.image_folder import ImageFolderDataModule
from fewshot.datamodules.omniglot import OmniglotDataModule

__all__ = [
    "CLINC150DataModule",
    "ClassificationDataModule",
    "EpisodicDataModule",
    "FewGLUEDataModule",
    "GaussianProcessDataModule",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "OmniglotDataModule",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
]
