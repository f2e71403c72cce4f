"""The engine in public: any module with other weights, and descent that is differentiated through.

For a bilevel loop of one's own, few-shot or not; docs/functional.md has examples. What stands in
`__all__` keeps its name and its meaning.
"""

from fewshot.engine.inner_loop import Weights
from fewshot.functional.episodes import map_episodes
from fewshot.functional.implicit import implicit
from fewshot.functional.modes import differentiable
from fewshot.functional.rules import SGD, Adam, AdamW, Rate, RMSprop, Rule, State
from fewshot.functional.steps import gradient_step, gradient_steps
from fewshot.functional.torch_rules import TorchRule
from fewshot.functional.weights import call, load_weights, weights_of

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Rate",
    "Rule",
    "State",
    "TorchRule",
    "Weights",
    "call",
    "differentiable",
    "gradient_step",
    "gradient_steps",
    "implicit",
    "load_weights",
    "map_episodes",
    "weights_of",
]
