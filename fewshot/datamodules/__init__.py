"""Benchmarks, one LightningDataModule each.

To add one: write the file, import its class here (which costs nothing until it is asked for).
"""

from typing import TYPE_CHECKING

from fewshot.lazy import lazy_names

if TYPE_CHECKING:
    from .base import EpisodicDataModule as EpisodicDataModule
    from .cactus import CACTUsDataModule as CACTUsDataModule
    from .camvid import CamVidDataModule as CamVidDataModule
    from .cifar100 import CIFARFSDataModule as CIFARFSDataModule
    from .cifar100 import FC100DataModule as FC100DataModule
    from .classification import ClassificationDataModule as ClassificationDataModule
    from .clinc150 import CLINC150DataModule as CLINC150DataModule
    from .control import BanditDataModule as BanditDataModule
    from .control import ControlDataModule as ControlDataModule
    from .control import NavigationDataModule as NavigationDataModule
    from .control import TabularMDPDataModule as TabularMDPDataModule
    from .cub import CUBDataModule as CUBDataModule
    from .fewglue import FewGLUEDataModule as FewGLUEDataModule
    from .fewrel import FewRelDataModule as FewRelDataModule
    from .function_modes import FunctionMixtureDataModule as FunctionMixtureDataModule
    from .functions import HarmonicDataModule as HarmonicDataModule
    from .functions import SinusoidAndLineDataModule as SinusoidAndLineDataModule
    from .functions import SinusoidDataModule as SinusoidDataModule
    from .gaussian_process import GaussianProcessDataModule as GaussianProcessDataModule
    from .glyphs import GlyphsDataModule as GlyphsDataModule
    from .gymnasium_environments import GymnasiumDataModule as GymnasiumDataModule
    from .half_cheetah import HalfCheetahDataModule as HalfCheetahDataModule
    from .image_folder import ImageFolderDataModule as ImageFolderDataModule
    from .imagenet import MiniImageNetDataModule as MiniImageNetDataModule
    from .imagenet import TieredImageNetDataModule as TieredImageNetDataModule
    from .images import ImageDataModule as ImageDataModule
    from .meta_dataset import MetaDatasetDataModule as MetaDatasetDataModule
    from .multi_digit import DoubleMNISTDataModule as DoubleMNISTDataModule
    from .multi_digit import TripleMNISTDataModule as TripleMNISTDataModule
    from .multi_source import MultiSourceDataModule as MultiSourceDataModule
    from .omniglot import OmniglotDataModule as OmniglotDataModule
    from .orbit import ORBITDataModule as ORBITDataModule
    from .pascal5i import Pascal5iDataModule as Pascal5iDataModule
    from .rainbow_mnist import RainbowMNISTDataModule as RainbowMNISTDataModule
    from .segmentation import SegmentationDataModule as SegmentationDataModule
    from .segmentation import SegmentationFolderDataModule as SegmentationFolderDataModule
    from .self_labelled import SelfLabelledDataModule as SelfLabelledDataModule
    from .snips import SNIPSDataModule as SNIPSDataModule
    from .text import TextDataModule as TextDataModule
    from .text_folder import TextFolderDataModule as TextFolderDataModule
    from .wiki_one import WikiOneDataModule as WikiOneDataModule
else:
    __getattr__, __dir__ = lazy_names(__name__)
