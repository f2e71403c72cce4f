"""Environments to act in: pure functions in torch, one file each.

An environment is stated as plain values, ``{"kind": "bandit", "arms": 5}``, which a checkpoint can
hold; `make_environment` builds it. The kind is one of `ENVIRONMENTS`, or the import path of a class
of the user's own that is derived from `fewshot.environments.base.Environment`.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError, nearest

if TYPE_CHECKING:
    from fewshot.environments.base import Environment

ENVIRONMENTS = {
    "bernoulli_bandit": "fewshot.environments.bernoulli_bandit.BernoulliBandit",
    "gaussian_bandit": "fewshot.environments.gaussian_bandit.GaussianBandit",
    "gymnasium": "fewshot.environments.gymnasium_environment.GymnasiumEnvironment",
    "half_cheetah_direction": "fewshot.environments.half_cheetah.HalfCheetahDirection",
    "half_cheetah_velocity": "fewshot.environments.half_cheetah.HalfCheetahVelocity",
    "navigation": "fewshot.environments.navigation.Navigation",
    "sparse_navigation": "fewshot.environments.navigation.SparseNavigation",
    "tabular_mdp": "fewshot.environments.tabular_mdp.TabularMDP",
}
"""The package's own environments, by the names that benchmarks state."""


def make_environment(facts: Mapping[str, Any]) -> "Environment":
    """The environment that `facts` describe, such as ``{"kind": "navigation", "horizon": 100}``.

    Raises:
        FewshotError: there is no such environment, or its arguments are not right.
    """
    from fewshot.environments.base import Environment

    arguments = dict(facts)
    kind = arguments.pop("kind", None)
    module, _, name = str(ENVIRONMENTS.get(str(kind), kind)).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError):
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, Environment)):
        raise FewshotError(
            f"environment {kind!r} is unknown{nearest(str(kind), ENVIRONMENTS)}; use one of"
            f" {', '.join(ENVIRONMENTS)}, or the import path of a class that is derived from"
            " fewshot.environments.base.Environment"
        )
    made: Environment = cls(**arguments)
    return made
