"""Networks from inputs to features, one file each.

To add one: write the file, import its class here (which costs nothing until it is asked for).
"""

from typing import TYPE_CHECKING

from fewshot.lazy import lazy_names

if TYPE_CHECKING:
    from .bag_of_words import BagOfWords as BagOfWords
    from .base import Backbone as Backbone
    from .bilstm import BiLSTM as BiLSTM
    from .colours import Colours as Colours
    from .conv4 import Conv4 as Conv4
    from .dilated import DilatedNetwork as DilatedNetwork
    from .efficientnet_lite0 import EfficientNetLite0 as EfficientNetLite0
    from .entity_vectors import EntityVectors as EntityVectors
    from .entity_vectors import MappedEntityVectors as MappedEntityVectors
    from .hugging_face import HuggingFaceEncoder as HuggingFaceEncoder
    from .hugging_face_vision import HuggingFaceVision as HuggingFaceVision
    from .masked_language_model import MaskedLanguageModel as MaskedLanguageModel
    from .mlp import MLP as MLP
    from .neighbour_encoder import NeighbourEncoder as NeighbourEncoder
    from .pair_encoder import PairEncoder as PairEncoder
    from .pixels import Pixels as Pixels
    from .relation_cnn import RelationCNN as RelationCNN
    from .resnet12 import ResNet12 as ResNet12
    from .sentence_encoder import MiniLM as MiniLM
    from .sentence_encoder import SentenceEncoder as SentenceEncoder
    from .text_cnn import TextCNN as TextCNN
    from .text_transformer import TextTransformer as TextTransformer
    from .tf_idf import TfIdf as TfIdf
    from .timm_model import TimmBackbone as TimmBackbone
    from .torchvision_model import TorchvisionBackbone as TorchvisionBackbone
    from .weighted_bag import WeightedBag as WeightedBag
    from .wrn import WRN28_10 as WRN28_10
else:
    __getattr__, __dir__ = lazy_names(__name__)
