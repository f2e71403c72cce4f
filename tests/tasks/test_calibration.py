"""Temperatures and calibration errors, against torchmetrics, scipy and written-out formulas."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from fewshot.learners.confidence import Confidence
from fewshot.tasks.calibration import (
    BINS,
    best_temperature,
    bin_sums,
    brier,
    expected_calibration_error,
    nll_by_temperature,
    smoothed,
    temperature_of,
)

optimize = pytest.importorskip("scipy.optimize", reason="needs the extra fewshot-lightning[dev]")


def drawn(n: int = 400, way: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times as sure as they should be, and labels drawn of what is right."""
    rng = torch.Generator().manual_seed(0)
    right = torch.randn(n, way, generator=rng, dtype=torch.float64) * 1.5
    labels = torch.multinomial(right.softmax(-1), 1, generator=rng)[:, 0]
    return scale * right, labels


@pytest.mark.parametrize("scale", [0.05, 0.5, 3.0, 20.0])
def test_the_temperature_is_the_one_that_an_optimizer_finds(scale: float) -> None:
    logits, labels = drawn(scale=scale)

    def loss(log_t: float) -> float:
        return F.cross_entropy(logits / torch.tensor(log_t).exp(), labels).item()

    found = optimize.minimize_scalar(loss, bounds=(-6, 6), method="bounded").x
    expected = torch.tensor(found).exp().item()
    temperature = best_temperature(nll_by_temperature(logits, labels)[0])
    assert temperature == pytest.approx(expected, rel=5e-3)
    assert temperature == pytest.approx(scale, rel=0.2)


def test_smoothed_labels_are_torchs() -> None:
    logits, labels = drawn(n=20)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum").item()
    one = smoothed(nll_by_temperature(logits, labels), 8)[48]  # temperature 1
    assert one.item() == pytest.approx(expected)


def test_few_examples_that_are_all_right_do_not_make_everything_certain() -> None:
    logits, labels = 10 * torch.eye(5).double() * 0.3, torch.arange(5)
    assert best_temperature(nll_by_temperature(logits, labels)[0]) == 0.01  # as sure as can be
    sure = (logits / temperature_of(logits, labels)).softmax(-1).amax(-1)
    # 1 / 7 is spread over all five classes
    torch.testing.assert_close(sure, torch.full((5,), 1 - 4 / 35).double(), atol=2e-3, rtol=0)


def test_a_validation_that_is_all_right_does_not_make_everything_certain() -> None:
    """An easy one had the least temperature of all, and a test beside it a loss of 4.1."""
    validation = Confidence()
    for _ in range(30):
        validation.update(3 * torch.eye(5), torch.arange(5), None)
    _, temperature, _ = validation.compute()
    assert temperature is not None
    sure = (3 * torch.eye(5) / temperature).softmax(-1).amax(-1)
    torch.testing.assert_close(sure, torch.full((5,), 1 - 4 / 5 / 152), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_calibration_error_is_torchmetrics(scale: float) -> None:
    logits, labels = drawn(scale=scale)
    probabilities = logits.softmax(-1)
    expected = multiclass_calibration_error(probabilities, labels, 5, n_bins=BINS, norm="l1")
    parts = sum(
        bin_sums(*part)
        for part in ((probabilities[:7], labels[:7]), (probabilities[7:], labels[7:]))
    )
    assert isinstance(parts, torch.Tensor)
    assert expected_calibration_error(parts) == pytest.approx(expected.item(), abs=1e-7)


def test_the_brier_score_is_written_out() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]]).double()
    found = brier(probabilities, torch.tensor([0, 2]))
    assert found.tolist() == pytest.approx([0.3**2 + 0.2**2 + 0.1**2, 2.0])


def test_sums_over_batches_are_those_of_all_queries_at_once() -> None:
    logits, labels = drawn()
    confidence = Confidence()
    for part in torch.split(torch.arange(400), 90):
        confidence.update(logits[part], labels[part], 3.0)
    found, best, bins = confidence.compute()
    for values, at in ((found["uncalibrated"], 1.0), (found, 3.0)):
        p = (logits / at).softmax(-1)
        ece = multiclass_calibration_error(p, labels, 5, n_bins=BINS, norm="l1").item()
        assert values["ece"] == pytest.approx(ece, abs=1e-5)
        assert values["nll"] == pytest.approx(F.nll_loss(p.log(), labels).item(), rel=1e-5)
        assert values["brier"] == pytest.approx(brier(p, labels).mean().item(), rel=1e-5)
    assert found["ece"] < found["uncalibrated"]["ece"]
    assert best == pytest.approx(3.0, rel=0.2)
    without = Confidence(chooses=False)  # as a test has it, which chooses no temperature
    for part in torch.split(torch.arange(400), 90):
        without.update(logits[part], labels[part], 3.0)
    *same, same_bins = without.compute()
    assert same == [found, None]
    scaled = bin_sums((logits / 3).softmax(-1), labels)
    for sums in (bins, same_bins):
        torch.testing.assert_close(sums.to(scaled), scaled, rtol=1e-5, atol=1e-5)
    assert not without.nll.any()
    confidence.reset()
    confidence.update(logits, labels, None)
    assert confidence.compute()[0].keys() == {"temperature", "ece", "brier", "nll"}
