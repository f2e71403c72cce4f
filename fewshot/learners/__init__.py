"""Learners, one LightningModule a family and one file an algorithm. To add one: write it, import its class here."""

from fewshot.learners.base import MetaLearner
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.prototypical_network import PrototypicalNetwork
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.maml import MAML

__all__ = ["MAML", "MetaLearner", "MetricLearner", "OptimizationLearner", "PrototypicalNetwork"]
