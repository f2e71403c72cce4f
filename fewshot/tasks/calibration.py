"""Calibrated probabilities: a temperature for logits, and how far off probabilities are.

Temperature scaling and the expected calibration error are those of Guo et al. (arXiv:1706.04599).
Sums over queries add up, so that no query need be kept. Shapes: n queries, N classes, G
temperatures.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15
"""Of the expected calibration error."""
TEMPERATURES = torch.logspace(-2, 2, 97, dtype=torch.float64)
"""Those that are tried, a tenth apart; what lies between is found by a parabola."""
AT_ONCE = 2**20
"""Numbers in memory at most."""


def nll_by_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """The summed cross-entropy at each of `TEMPERATURES`, (2, G), of logits (n, N), labels (n,).

    Of the labels (row 0), and of labels that are spread over all classes alike (1).
    """
    inverse = (1 / TEMPERATURES).to(logits)[:, None, None]
    size = max(1, AT_ONCE // (len(inverse) * logits.shape[-1]))
    parts = zip(torch.split(logits, size), torch.split(labels, size), strict=True)
    return torch.stack([_summed(inverse * part, of) for part, of in parts]).sum(0)


def _summed(scaled: Tensor, labels: Tensor) -> Tensor:
    """Both cross-entropies (2, G) of logits (G, n, N), summed over the labels (n,)."""
    logs = scaled.log_softmax(-1)
    right = logs.gather(-1, labels.expand(len(scaled), -1)[..., None])[..., 0]
    return -torch.stack([right.sum(-1), logs.mean(-1).sum(-1)])


def smoothed(nll: Tensor, number: int) -> Tensor:
    """The sums (2, G) of `nll_by_temperature` as those (G,) of Platt's smoothed labels.

    A label counts as (n + 1) / (n + 2) sure, as if two more had been seen, one of them wrong: so
    that examples which are all right do not make everything certain. Of many it changes nothing.

    Args:
        nll: the sums.
        number: n, over so many examples.
    """
    share = 1 / (number + 2)
    return (1 - share) * nll[0] + share * nll[1]


def best_temperature(nll: Tensor) -> float:
    """The temperature with the least of the sums (G,), see `smoothed`.

    Between the least and its neighbours by the parabola through them in log T.
    """
    nll = nll.double().cpu()
    best = int(nll.argmin())
    logs = TEMPERATURES.log()
    if not 0 < best < len(nll) - 1:
        return float(TEMPERATURES[best])
    before, at, after = nll[best - 1 : best + 2].tolist()
    bend = before - 2 * at + after
    shift = (before - after) / (2 * bend) if bend > 0 else 0.0
    return float((logs[best] + shift * (logs[1] - logs[0])).exp())


def temperature_of(logits: Tensor, labels: Tensor) -> float:
    """The temperature that suits logits (n, N) and labels (n,) best, by smoothed labels."""
    logits, labels = logits.cpu().double(), labels.cpu()  # not every device has doubles
    return best_temperature(smoothed(nll_by_temperature(logits, labels), len(labels)))


def brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The squared distance (n,) of probabilities (n, N) to the certain right ones (Brier 1950)."""
    sure = F.one_hot(labels, probabilities.shape[-1]).to(probabilities)
    return (probabilities - sure).square().sum(-1)


def bin_sums(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Of each of `BINS` equal bins of confidence: queries, right ones, summed confidence (3, BINS).

    A query's confidence is its largest probability, and a bin's upper edge belongs to it.
    """
    confidence, predicted = probabilities.max(-1)
    places = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    values = torch.stack(
        [torch.ones_like(confidence), (predicted == labels).to(confidence), confidence]
    )
    return values.new_zeros(3, BINS).index_add_(1, places, values)


def expected_calibration_error(sums: Tensor) -> float:
    """The mean over queries of |accuracy - confidence| of their bins, from `bin_sums`."""
    number, right, confidence = sums.double().cpu()
    return float((right - confidence).abs().sum() / number.sum())
