"""fewshot: few-shot learning and meta-learning on PyTorch Lightning.

Names are imported when they are asked for: `import fewshot` alone loads no torch.
"""

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

from fewshot.extras import DISTRIBUTION
from fewshot.lazy import lazy_names

__version__ = version(DISTRIBUTION)
# tqdm, as others import it in a notebook without ipywidgets; nothing here is drawn by it
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:
    from fewshot.backbones import *
    from fewshot.backbones.adapters import TSA as TSA
    from fewshot.backbones.adapters import Adapters as Adapters
    from fewshot.backbones.adapters import LoRA as LoRA
    from fewshot.callbacks.evaluate import Evaluation as Evaluation
    from fewshot.callbacks.evaluate import evaluate as evaluate
    from fewshot.callbacks.trainer import Trainer as Trainer
    from fewshot.datamodules import *
    from fewshot.deployment.classifier import FewShotClassifier as FewShotClassifier
    from fewshot.deployment.encoder import trained_backbone as trained_backbone
    from fewshot.deployment.load import load as load
    from fewshot.deployment.pretrained import pretrained as pretrained
    from fewshot.engine.allocation import keep_freed_memory as keep_freed_memory
    from fewshot.engine.augmentation import Augmentation as Augmentation
    from fewshot.episodes.types import Episode as Episode
    from fewshot.episodes.types import ExampleBatch as ExampleBatch
    from fewshot.episodes.types import Examples as Examples
    from fewshot.episodes.types import MetaBatch as MetaBatch
    from fewshot.errors import FewshotError as FewshotError
    from fewshot.learners import *
    from fewshot.learners.optimization.attacks import FGSM as FGSM
    from fewshot.learners.optimization.attacks import PGD as PGD
    from fewshot.learners.optimization.attacks import Attack as Attack
    from fewshot.learners.optimization.outer import Outer as Outer
    from fewshot.learners.optimization.promp import ProMP as ProMP
    from fewshot.learners.optimization.trpo import TRPO as TRPO
else:
    __getattr__, __dir__ = lazy_names(__name__)
