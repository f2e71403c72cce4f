"""Networks from inputs to features, one file each.

To add one: write the file, import its class here.
"""

from fewshot.backbones.bag_of_words import BagOfWords
from fewshot.backbones.base import Backbone
from fewshot.backbones.bilstm import BiLSTM
from fewshot.backbones.colours import Colours
from fewshot.backbones.conv4 import Conv4
from fewshot.backbones.dilated import DilatedNetwork
from fewshot.backbones.entity_vectors import EntityVectors, MappedEntityVectors
from fewshot.backbones.hugging_face import HuggingFaceEncoder
from fewshot.backbones.masked_language_model import MaskedLanguageModel
from fewshot.backbones.mlp import MLP
from fewshot.backbones.neighbour_encoder import NeighbourEncoder
from fewshot.backbones.pair_encoder import PairEncoder
from fewshot.backbones.pixels import Pixels
from fewshot.backbones.relation_cnn import RelationCNN
from fewshot.backbones.resnet12 import ResNet12
from fewshot.backbones.text_cnn import TextCNN
from fewshot.backbones.text_transformer import TextTransformer
from fewshot.backbones.tf_idf import TfIdf
from fewshot.backbones.torchvision_model import TorchvisionBackbone
from fewshot.backbones.weighted_bag import WeightedBag
from fewshot.backbones.wrn import WRN28_10

__all__ = [
    "MLP",
    "WRN28_10",
    "Backbone",
    "BagOfWords",
    "BiLSTM",
    "Colours",
    "Conv4",
    "DilatedNetwork",
    "EntityVectors",
    "HuggingFaceEncoder",
    "MappedEntityVectors",
    "MaskedLanguageModel",
    "NeighbourEncoder",
    "PairEncoder",
    "Pixels",
    "RelationCNN",
    "ResNet12",
    "TextCNN",
    "TextTransformer",
    "TfIdf",
    "TorchvisionBackbone",
    "WeightedBag",
]
