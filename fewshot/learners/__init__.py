"""Learners, one LightningModule a family and one file an algorithm.

To add one: write it, import its class here.
"""

from fewshot.learners.base import MetaLearner
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.bert_pair import BERTPair
from fewshot.learners.metric.g_matching import GMatching
from fewshot.learners.metric.matching_network import MatchingNetwork
from fewshot.learners.metric.panet import PANet
from fewshot.learners.metric.prototypical_network import PrototypicalNetwork
from fewshot.learners.metric.r2d2 import R2D2
from fewshot.learners.metric.relation_network import RelationNetwork
from fewshot.learners.metric.siamese_network import SiameseNetwork
from fewshot.learners.metric.simple_shot import SimpleShot
from fewshot.learners.model_based.anp import ANP
from fewshot.learners.model_based.base import ModelBasedLearner
from fewshot.learners.model_based.cnaps import CNAPs
from fewshot.learners.model_based.cnp import CNP
from fewshot.learners.model_based.gaussian_process import GaussianProcess
from fewshot.learners.model_based.mann import MANN
from fewshot.learners.model_based.simple_cnaps import SimpleCNAPs
from fewshot.learners.model_based.snail import SNAIL
from fewshot.learners.optimization.adml import ADML
from fewshot.learners.optimization.anil import ANIL, BOIL
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.cavia import CAVIA
from fewshot.learners.optimization.imaml import IMAML
from fewshot.learners.optimization.maml import FOMAML, MAML
from fewshot.learners.optimization.maml_plus_plus import MAMLPlusPlus
from fewshot.learners.optimization.meta_r import MetaR
from fewshot.learners.optimization.meta_sgd import MetaSGD
from fewshot.learners.optimization.proto_maml import ProtoMAML
from fewshot.learners.optimization.reptile import Reptile
from fewshot.learners.transfer.base import TransferLearner
from fewshot.learners.transfer.baseline import Baseline
from fewshot.learners.transfer.baseline_plus_plus import BaselinePlusPlus
from fewshot.learners.transfer.fine_tune import FineTune
from fewshot.learners.transfer.fine_tune_text import FineTuneText
from fewshot.learners.transfer.pet import PET
from fewshot.learners.transfer.rfs import RFS
from fewshot.learners.transfer.tail_frequency import TailFrequency
from fewshot.learners.transfer.trans_e import TransE

__all__ = [
    "ADML",
    "ANIL",
    "ANP",
    "BOIL",
    "CAVIA",
    "CNP",
    "FOMAML",
    "IMAML",
    "MAML",
    "MANN",
    "PET",
    "R2D2",
    "RFS",
    "SNAIL",
    "BERTPair",
    "Baseline",
    "BaselinePlusPlus",
    "CNAPs",
    "FineTune",
    "FineTuneText",
    "GMatching",
    "GaussianProcess",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaLearner",
    "MetaR",
    "MetaSGD",
    "MetricLearner",
    "ModelBasedLearner",
    "OptimizationLearner",
    "PANet",
    "ProtoMAML",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "SiameseNetwork",
    "SimpleCNAPs",
    "SimpleShot",
    "TailFrequency",
    "TransE",
    "TransferLearner",
]
