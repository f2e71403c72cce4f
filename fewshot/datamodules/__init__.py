"""Benchmarks, one LightningDataModule each. To add one: write the file, import its class here."""

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.camvid import CamVidDataModule
from fewshot.datamodules.cifar100 import CIFARFSDataModule, FC100DataModule
from fewshot.datamodules.classification import ClassificationDataModule
from fewshot.datamodules.clinc150 import CLINC150DataModule
from fewshot.datamodules.cub import CUBDataModule
from fewshot.datamodules.fewglue import FewGLUEDataModule
from fewshot.datamodules.fewrel import FewRelDataModule
from fewshot.datamodules.functions import (
    HarmonicDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.datamodules.gaussian_process import GaussianProcessDataModule
from fewshot.datamodules.glyphs import GlyphsDataModule
from fewshot.datamodules.image_folder import ImageFolderDataModule
from fewshot.datamodules.imagenet import MiniImageNetDataModule, TieredImageNetDataModule
from fewshot.datamodules.images import ImageDataModule
from fewshot.datamodules.meta_dataset import MetaDatasetDataModule
from fewshot.datamodules.multi_digit import DoubleMNISTDataModule, TripleMNISTDataModule
from fewshot.datamodules.multi_source import MultiSourceDataModule
from fewshot.datamodules.omniglot import OmniglotDataModule
from fewshot.datamodules.orbit import ORBITDataModule
from fewshot.datamodules.pascal5i import Pascal5iDataModule
from fewshot.datamodules.segmentation import SegmentationDataModule, SegmentationFolderDataModule
from fewshot.datamodules.snips import SNIPSDataModule
from fewshot.datamodules.text import TextDataModule
from fewshot.datamodules.wiki_one import WikiOneDataModule

__all__ = [
    "CIFARFSDataModule",
    "CLINC150DataModule",
    "CUBDataModule",
    "CamVidDataModule",
    "ClassificationDataModule",
    "DoubleMNISTDataModule",
    "EpisodicDataModule",
    "FC100DataModule",
    "FewGLUEDataModule",
    "FewRelDataModule",
    "GaussianProcessDataModule",
    "GlyphsDataModule",
    "HarmonicDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "MetaDatasetDataModule",
    "MiniImageNetDataModule",
    "MultiSourceDataModule",
    "ORBITDataModule",
    "OmniglotDataModule",
    "Pascal5iDataModule",
    "SNIPSDataModule",
    "SegmentationDataModule",
    "SegmentationFolderDataModule",
    "SinusoidAndLineDataModule",
    "SinusoidDataModule",
    "TextDataModule",
    "TieredImageNetDataModule",
    "TripleMNISTDataModule",
    "WikiOneDataModule",
]
