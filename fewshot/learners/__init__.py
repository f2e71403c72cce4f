"""Learners, one LightningModule a family and one file an algorithm.

To add one: write it, import its class here (which costs nothing until it is asked for).
"""

from typing import TYPE_CHECKING

from fewshot.lazy import lazy_names

if TYPE_CHECKING:
    from .base import MetaLearner as MetaLearner
    from .metric.base import MetricLearner as MetricLearner
    from .metric.bert_pair import BERTPair as BERTPair
    from .metric.feat import FEAT as FEAT
    from .metric.g_matching import GMatching as GMatching
    from .metric.matching_network import MatchingNetwork as MatchingNetwork
    from .metric.panet import PANet as PANet
    from .metric.prototypical_network import PrototypicalNetwork as PrototypicalNetwork
    from .metric.psco import PsCo as PsCo
    from .metric.r2d2 import R2D2 as R2D2
    from .metric.relation_network import RelationNetwork as RelationNetwork
    from .metric.siamese_network import SiameseNetwork as SiameseNetwork
    from .metric.simple_shot import SimpleShot as SimpleShot
    from .model_based.anp import ANP as ANP
    from .model_based.base import ModelBasedLearner as ModelBasedLearner
    from .model_based.cnaps import CNAPs as CNAPs
    from .model_based.cnp import CNP as CNP
    from .model_based.gaussian_process import GaussianProcess as GaussianProcess
    from .model_based.mann import MANN as MANN
    from .model_based.rl2 import RL2 as RL2
    from .model_based.simple_cnaps import SimpleCNAPs as SimpleCNAPs
    from .model_based.snail import SNAIL as SNAIL
    from .optimization.adml import ADML as ADML
    from .optimization.anil import ANIL as ANIL
    from .optimization.anil import BOIL as BOIL
    from .optimization.base import OptimizationLearner as OptimizationLearner
    from .optimization.cavia import CAVIA as CAVIA
    from .optimization.imaml import IMAML as IMAML
    from .optimization.maml import FOMAML as FOMAML
    from .optimization.maml import MAML as MAML
    from .optimization.maml_plus_plus import MAMLPlusPlus as MAMLPlusPlus
    from .optimization.meta_r import MetaR as MetaR
    from .optimization.meta_sgd import MetaSGD as MetaSGD
    from .optimization.mmaml import MMAML as MMAML
    from .optimization.mr_maml import MRMAML as MRMAML
    from .optimization.multi_task import MultiTask as MultiTask
    from .optimization.proto_maml import ProtoMAML as ProtoMAML
    from .optimization.reptile import Reptile as Reptile
    from .optimization.taml import TAML as TAML
    from .reference.bandits import UCB1 as UCB1
    from .reference.bandits import BayesOptimum as BayesOptimum
    from .reference.bandits import EpsilonGreedy as EpsilonGreedy
    from .reference.bandits import GittinsIndex as GittinsIndex
    from .reference.bandits import RandomPolicy as RandomPolicy
    from .reference.bandits import ThompsonSampling as ThompsonSampling
    from .reference.base import ReferencePolicy as ReferencePolicy
    from .reference.psrl import PSRL as PSRL
    from .reference.told_goal import ToldGoal as ToldGoal
    from .transfer.base import TransferLearner as TransferLearner
    from .transfer.baseline import Baseline as Baseline
    from .transfer.baseline_plus_plus import BaselinePlusPlus as BaselinePlusPlus
    from .transfer.bd_cspn import BDCSPN as BDCSPN
    from .transfer.fine_tune import FineTune as FineTune
    from .transfer.fine_tune_text import FineTuneText as FineTuneText
    from .transfer.laplacian_shot import LaplacianShot as LaplacianShot
    from .transfer.nearest_neighbour import NearestNeighbour as NearestNeighbour
    from .transfer.pet import PET as PET
    from .transfer.pt_map import PTMAP as PTMAP
    from .transfer.rfs import RFS as RFS
    from .transfer.ridge_regression import RidgeRegression as RidgeRegression
    from .transfer.tail_frequency import TailFrequency as TailFrequency
    from .transfer.tim import TIM as TIM
    from .transfer.tip_adapter import TipAdapter as TipAdapter
    from .transfer.trans_e import TransE as TransE
    from .transfer.transductive_fine_tuning import (
        TransductiveFineTuning as TransductiveFineTuning,
    )
else:
    __getattr__, __dir__ = lazy_names(__name__)
