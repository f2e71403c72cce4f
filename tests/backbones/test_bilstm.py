"""The bidirectional LSTM against its equations, text by text.

Padding and derivatives: see test_text.py.
"""

from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor

import fewshot.engine.normalization
from fewshot.backbones import BiLSTM
from fewshot.engine.episode_map import choose
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners import MAML

TOKENS = torch.tensor([[4, 2, 5, 1, 3], [3, 3, 1, 0, 0], [2, 0, 0, 0, 0]])
INPUTS = {"tokens": TOKENS, "lengths": torch.tensor([5, 3, 1])}
Pooling = Literal["max", "mean", "last"]


def direction(words: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """The states (L, H) of one direction over one text (L, E): the equations of an LSTM."""
    size = w[f"{name}.weight_hh_l0"].shape[1]
    state = cell = torch.zeros(size, dtype=torch.float64)
    states = []
    for word in words:
        gates = w[f"{name}.weight_ih_l0"] @ word + w[f"{name}.bias_ih_l0"]
        gates = gates + w[f"{name}.weight_hh_l0"] @ state + w[f"{name}.bias_hh_l0"]
        take, forget, new, give = gates.view(4, size)
        cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
        state = give.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states)


def written_out(w: dict[str, Tensor], text: Tensor, layers: int, pooling: Pooling) -> Tensor:
    words = w["embedding.weight"][text]
    for layer in range(layers):
        forward = direction(words, w, f"forwards.{layer}")
        backward = direction(words.flip(0), w, f"backwards.{layer}").flip(0)
        words = torch.cat([forward, backward], 1)
    if pooling == "max":
        return words.amax(0)
    return words.mean(0) if pooling == "mean" else torch.cat([forward[-1], backward[0]])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
def test_the_features_are_those_of_the_equations(layers: int, pooling: Pooling) -> None:
    torch.manual_seed(0)
    network = BiLSTM(6, embedding_dim=3, hidden=4, layers=layers, pooling=pooling).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    features = network(INPUTS)
    assert features.shape == (3, network.out_features) == (3, 8)
    expected = [
        written_out(network.state_dict(), text[:length], layers, pooling)
        for text, length in zip(TOKENS, INPUTS["lengths"], strict=True)
    ]
    torch.testing.assert_close(features, torch.stack(expected), rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network, plain = BiLSTM(6, layers=2, dropout=0.5), BiLSTM(6, layers=2)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(INPUTS), plain(INPUTS))
    assert not torch.equal(network.train()(INPUTS), plain(INPUTS))
    seen: list[Tensor] = []
    for layer in network.forwards:
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(INPUTS)
    assert [round((states[0] == 0).double().mean().item(), 1) for states in seen] == [
        0.5,
        0.5,
    ], "in every layer"


def batch() -> Episode:
    """Two episodes of texts of many lengths.

    The lengths are what must not take part in a gradient.
    """
    generator = torch.Generator().manual_seed(3)

    def examples() -> Examples:
        lengths = torch.randint(1, 6, (2, 4), generator=generator)
        tokens = torch.randint(1, 6, (2, 4, 5), generator=generator)
        inputs: Inputs = {
            "tokens": tokens * (torch.arange(5) < lengths.unsqueeze(-1)),
            "lengths": lengths,
        }
        return Examples(inputs, torch.arange(2).repeat(2, 2))

    return Episode(examples(), examples())


def loss_of(learner: MAML) -> Tensor:
    return torch.cat([outcome.loss for outcome in learner.run(batch(), training=True)]).mean()


def test_it_adapts_by_second_order_maml_episode_by_episode() -> None:
    torch.manual_seed(0)
    learner = MAML(
        BiLSTM(6, 3, 2), task={"kind": "classification", "way": 2}, inner_steps=2, inner_lr=0.3
    ).double()
    assert choose(learner.backbone, batch()) == "loop"
    parameters = [p for p in learner.parameters() if p.requires_grad]

    gradients = torch.autograd.grad(loss_of(learner), parameters)
    steps = [1e-6 * torch.randn_like(p) for p in parameters]
    single = torch.autograd.grad(loss_of(learner.float()), list(parameters))
    # single precision has an LSTM of its own on a CPU
    for one, two in zip(single, gradients, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-3, atol=1e-6)
    learner.double()
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(sign * step)
            ends.append(loss_of(learner))
    slope = torch.stack([(g * s).sum() for g, s in zip(gradients, steps, strict=True)]).sum()
    torch.testing.assert_close((ends[0] - ends[1]) / 2, slope, rtol=1e-5, atol=0)


def test_adaptation_keeps_away_from_cudnn_whose_lstm_has_no_second_derivative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = MAML(BiLSTM(6, 3, 2), task={"kind": "classification", "way": 2}, inner_steps=1)
    seen: list[bool] = []
    inner = fewshot.engine.normalization._without_cudnn
    recurrent = fewshot.engine.normalization.RECURRENT

    def spy(recurrence: object, *args: object, **kwargs: object) -> object:
        assert callable(recurrence)

        def looked_at(*args: object, **kwargs: object) -> object:
            seen.append(torch.backends.cudnn.enabled)
            return recurrence(*args, **kwargs)

        return inner(looked_at, *args, **kwargs)

    spies = {function: partial(spy, function) for function in recurrent}
    monkeypatch.setattr(fewshot.engine.normalization, "RECURRENT", spies)
    list(learner.run(batch(), training=True))
    assert seen
    assert not any(seen)
    adapting = len(seen)
    assert torch.backends.cudnn.enabled
    learner.backbone(INPUTS)
    assert len(seen) == adapting, "where nothing adapts, cuDNN is left alone"


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(FewshotError, match=r"^hidden is 0; set hidden >= 1$"):
        BiLSTM(6, hidden=0)
    with pytest.raises(FewshotError, match=r"^layers is 0; set layers >= 1$"):
        BiLSTM(6, layers=0)
