"""How right probabilities are over a validation or test, whatever the ranks and batches."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from fewshot.tasks.calibration import (
    BINS,
    TEMPERATURES,
    best_temperature,
    bin_sums,
    brier,
    expected_calibration_error,
    nll_by_temperature,
    smoothed,
)


class Confidence(Metric):
    """Sums over queries: the cross-entropy by temperature, and errors of the probabilities.

    Errors are of probabilities as they come (row 0), and of those at the temperature in use (1),
    where there is one.

    Args:
        chooses: whether the temperature that suits best is looked for, as validations do. It is
            most of what an update costs.
    """

    full_state_update = False
    queries: Tensor
    nll: Tensor
    bins: Tensor
    brier: Tensor
    loss: Tensor

    def __init__(self, chooses: bool = True) -> None:
        super().__init__()
        self.chooses = chooses
        shapes = {
            "nll": (2, len(TEMPERATURES)),
            "bins": (2, 3, BINS),
            "brier": (2,),
            "loss": (2,),
            "queries": (),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape), dist_reduce_fx="sum")
        self.temperature: float | None = None

    def update(self, logits: Tensor, labels: Tensor, temperature: float | None) -> None:
        """Add queries: logits (n, N), labels (n,), and the temperature that is in use for all."""
        logits = logits.float()
        self.temperature = temperature
        self.queries += len(labels)
        if self.chooses:
            self.nll += nll_by_temperature(logits, labels)
        for row, at in enumerate((1.0,) if temperature is None else (1.0, temperature)):
            probabilities = (logits / at).softmax(-1)
            self.bins[row] += bin_sums(probabilities, labels)
            self.brier[row] += brier(probabilities, labels).sum()
            self.loss[row] += F.cross_entropy(logits / at, labels, reduction="sum")

    def compute(self) -> tuple[dict[str, Any], float | None, Tensor]:
        """The errors of the probabilities, the temperature that suits best, and the bins.

        The errors, plain values, are of the probabilities in use, and of those before where there
        is a temperature. None suits best where none was looked for. The bins (3, BINS) are those
        of the probabilities in use, as `bin_sums` gives them, on the CPU.
        """
        # here, where the sums are those of all ranks
        number = int(self.queries)
        best = best_temperature(smoothed(self.nll, number)) if self.chooses else None
        before = self._errors(0)
        if self.temperature is None:
            return {"temperature": None, **before}, best, self.bins[0].cpu()
        now = {"temperature": self.temperature, **self._errors(1), "uncalibrated": before}
        return now, best, self.bins[1].cpu()

    def _errors(self, row: int) -> dict[str, float]:
        return {
            "ece": expected_calibration_error(self.bins[row]),
            "brier": float(self.brier[row] / self.queries),
            "nll": float(self.loss[row] / self.queries),
        }
