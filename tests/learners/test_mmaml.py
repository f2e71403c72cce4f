"""MMAML: its encoder is torch's LSTM, its modulation FiLM before the ReLU, its parts get gradients."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import FunctionMixtureDataModule
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import MMAML
from fewshot.learners.optimization.mmaml import TaskEncoder

TASK = {"kind": "regression", "targets": 1}


pytestmark = pytest.mark.usefixtures("double")


def made() -> MMAML:
    torch.manual_seed(0)
    return MMAML(MLP(1, [6, 5]), encoding=3, inner_lr=0.1, inner_steps=2, task=TASK)


def tasks(number: int) -> Episode:
    data = FunctionMixtureDataModule(modes=3, shot=4, queries=6)
    part = data.stream("val").__getitems__(range(number)).stacked
    return Episode(
        *(p._replace(inputs=p.inputs.double(), targets=p.targets.double()) for p in part)  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("layers", [1, 2])
def test_the_encoder_is_torchs_lstm(layers: int) -> None:
    torch.manual_seed(0)
    encoder, x = TaskEncoder(2, 4, layers), torch.randn(7, 2)
    states = encoder.lstm(x[:, None])[0][:, 0]
    expected = torch.cat([states[-1, :4], states[0, 4:]])
    torch.testing.assert_close(encoder(x), expected, rtol=1e-12, atol=1e-14)


def test_the_network_is_scaled_and_shifted_before_the_relu_and_adapts_by_descent() -> None:
    learner, one = made(), episode(tasks(1), 0)
    x, y = one.support.inputs, one.support.targets
    assert isinstance(x, torch.Tensor)
    task = learner.encoder(torch.cat([x, y], 1))
    films = [layer(task).view(2, -1) for layer in learner.generators]
    w: dict[str, torch.Tensor] = dict(learner.network.named_parameters())

    def outputs(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for number, (scale, shift) in zip((0, 2), films, strict=True):
            name = f"backbone.layers.{number}"
            x = torch.relu(
                F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]) * (1 + scale) + shift
            )
        return F.linear(x, w["head.weight"], w["head.bias"])

    for _ in range(2):
        slopes = torch.autograd.grad(
            F.mse_loss(outputs(w, x), y), list(w.values()), create_graph=True
        )
        norm = torch.stack([s.square().sum() for s in slopes]).sum().sqrt()
        shorter = (10 / norm).clamp(max=1)
        w = {name: w[name] - 0.1 * shorter * s for name, s in zip(w, slopes, strict=True)}
    queries = one.query.inputs
    assert isinstance(queries, torch.Tensor)
    expected = outputs(w, queries)
    adapted = learner.adapt(Examples(x, y))
    torch.testing.assert_close(learner.predict(adapted, queries), expected, rtol=1e-10, atol=1e-12)
    parameters = list(learner.parameters())
    wanted = torch.autograd.grad(F.mse_loss(expected, one.query.targets), parameters)
    for how in ("loop", "vmap"):
        learner.episode_parallel = how
        batch = Episode(*(Examples(p.inputs[None], p.targets[None]) for p in one))  # type: ignore[index]
        (outcome,) = learner.run(batch, training=True)
        found = torch.autograd.grad(outcome.loss.sum(), parameters)
        for slope, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(slope, other, rtol=1e-8, atol=1e-10)


def test_what_it_cannot_modulate_is_refused_in_one_line() -> None:
    with pytest.raises(
        FewshotError, match="scales and shifts linear layers, of which Conv4 has none"
    ):
        MMAML(Conv4(1, 28, width=4), task=TASK)
    with pytest.raises(FewshotError, match="MMAML is made for regression"):
        MMAML(MLP(1), task={"kind": "classification", "way": 5})
