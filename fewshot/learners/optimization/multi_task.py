"""One network for all tasks, fine-tuned at test: what meta-learning is compared with."""

from typing import Any

from torch import nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.optimization.maml import MAML


class MultiTask(MAML):
    """MultiTask: trains one network on all tasks without an inner loop, and fine-tunes it at test.

    The pre-trained baseline of MAML's paper, for regression and for acting, where a task's outputs
    mean the same in all tasks; labels that are drawn anew for each episode cannot be learned so.
    Paper: arXiv:1703.03400.

    Args:
        backbone: the network from inputs to features.
        eval_inner_steps: gradient steps on the support at validation and test.
        inner_lr: their learning rate, on the mean support loss.
        **kwargs: arguments of `MAML`, without `inner_steps` and `first_order`.
    """

    fixed_arguments = ("inner_steps", "first_order")

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        eval_inner_steps: Count = 1,
        inner_lr: Positive = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            inner_lr=inner_lr,
            first_order=True,
            inner_steps=1,  # said here, so that the command line does not take it for an argument
            eval_inner_steps=eval_inner_steps,
            **kwargs,
        )
        self.inner_steps = 0
