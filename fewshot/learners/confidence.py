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
)


class Confidence(Metric):
    """Sums over queries: the cross-entropy by temperature, and errors of the probabilities.

    Errors are of probabilities as they come (row 0), and of those at the temperature in use (1).
    """

    full_state_update = False
    queries: Tensor
    nll: Tensor
    bins: Tensor
    brier: Tensor
    loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "nll": (len(TEMPERATURES),),
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
        self.nll += nll_by_temperature(logits, labels)
        for row, at in enumerate((1.0, temperature or 1.0)):
            probabilities = (logits / at).softmax(-1)
            self.bins[row] += bin_sums(probabilities, labels)
            self.brier[row] += brier(probabilities, labels).sum()
            self.loss[row] += F.cross_entropy(logits / at, labels, reduction="sum")

    def compute(self) -> tuple[dict[str, Any], float]:
        """Plain values: the errors of the probabilities, and the temperature that suits best.

        The errors are of the probabilities in use, and of those before where there is a
        temperature.
        """
        before, now = (
            {
                "ece": expected_calibration_error(self.bins[row]),
                "brier": float(self.brier[row] / self.queries),
                "nll": float(self.loss[row] / self.queries),
            }
            for row in (0, 1)
        )
        # here, where the sums are those of all ranks
        best = best_temperature(self.nll)
        if self.temperature is None:
            return {"temperature": None, **before}, best
        return {"temperature": self.temperature, **now, "uncalibrated": before}, best
