"""Regression on functions of one mode, and of several at once."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from fewshot.datamodules.functions import FunctionDataModule
from fewshot.datasets.function_modes import FunctionModes
from fewshot.datasets.functions import FunctionTasks

ModeName = Literal["sinusoid", "line", "quadratic", "absolute", "tanh"]
MIXTURES: dict[int, tuple[ModeName, ...]] = {
    2: ("sinusoid", "line"),
    3: ("sinusoid", "line", "quadratic"),
    5: ("sinusoid", "line", "quadratic", "tanh", "absolute"),
}
"""The paper's, by their number of modes."""


class FunctionMixtureDataModule(FunctionDataModule):
    """FunctionMixture: tasks of several modes, with noise of 0.3. Paper: arXiv:1910.13616.

    Args:
        modes: how many, 2, 3 or 5, as in the paper; or names, of which one makes the benchmark of
            that mode alone: `sinusoid`, `line`, `quadratic`, `absolute`, `tanh`.
        **kwargs: arguments of `FunctionDataModule`.
    """

    benchmark: ClassVar[str] = "FunctionMixture"

    def __init__(self, modes: Literal[2, 3, 5] | Sequence[ModeName] = 2, **kwargs: Any) -> None:
        self.modes = MIXTURES[modes] if isinstance(modes, int) else tuple(modes)
        super().__init__(**kwargs)

    def family(self, shot: int, queries: int) -> FunctionTasks:
        """The modes, seen at so many points."""
        return FunctionModes(shot, queries, self.modes)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return {**super().protocol(), "modes": ", ".join(self.modes)}
