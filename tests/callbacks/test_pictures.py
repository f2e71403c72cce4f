"""Pictures of episodes: what is right is green, what is wrong is red."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import SINUSOID, fit
from matplotlib.colors import to_hex
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from fewshot.backbones import MLP, Pixels
from fewshot.callbacks.pictures import (
    RIGHT,
    WRONG,
    bands,
    draw_function,
    draw_images,
    predictions_by_step,
)
from fewshot.datamodules import GaussianProcessDataModule
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.learners import CNP, MAML, PrototypicalNetwork
from fewshot.tasks.gaussian_process import posterior


def episode(way: int, queries: int, channels: int = 1) -> Episode:
    labels = torch.arange(way)
    images = torch.rand(way * queries, channels, 6, 6)
    return Episode(
        Examples(torch.rand(way, channels, 6, 6), labels),
        Examples(images, labels.repeat_interleave(queries)),
    )


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_each_query_is_framed_by_whether_it_is_right(channels: int) -> None:
    one = episode(3, 2, channels)
    # the second of class 0 and the second of class 2 are wrong
    predicted = torch.tensor([0, 1, 1, 1, 2, 0])
    figure = draw_images(one, predicted)
    (axis,) = figure.axes
    assert len(axis.images) == 3 + 6
    assert [to_hex(patch.get_edgecolor()) for patch in axis.patches] == [
        RIGHT,
        WRONG,
        RIGHT,
        RIGHT,
        RIGHT,
        WRONG,
    ]
    marks = [text.get_text() for text in axis.texts if text.get_text()[0] in "✓✗"]
    assert marks == ["✓ 1", "✗ 2", "✓ 2", "✓ 2", "✓ 3", "✗ 1"]
    drawn = torch.as_tensor(axis.images[0].get_array())
    # a tensor
    colours = one.support.inputs[0][-3:].permute(1, 2, 0).expand(6, 6, 3)  # type: ignore[index]
    assert torch.equal(drawn, colours)
    figure.canvas.draw()


def test_a_large_episode_is_cut() -> None:
    figure = draw_images(episode(20, 9), torch.zeros(180, dtype=torch.int64), queries=4, classes=6)
    assert len(figure.axes[0].images) == 6 * (1 + 4)


def test_a_function_is_drawn_in_order() -> None:
    x = torch.tensor([[2.0], [0.0], [1.0]])
    one = Episode(Examples(x[:1], x[:1]), Examples(x, 2 * x))
    figure = draw_function(one, {"before adaptation": -x, "after 1 step": 3 * x})
    true, before, after, support = figure.axes[0].lines
    assert np.ravel(true.get_xdata()).tolist() == [0, 1, 2]
    assert np.ravel(true.get_ydata()).tolist() == [0, 2, 4]
    assert np.ravel(before.get_ydata()).tolist() == [0, -1, -2]
    assert np.ravel(after.get_ydata()).tolist() == [0, 3, 6]
    assert (np.ravel(support.get_xdata()).tolist(), np.ravel(support.get_ydata()).tolist()) == (
        [2],
        [2],
    )
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "true",
        "before adaptation",
        "after 1 step",
        "support",
    ]


def test_what_is_known_of_the_spread_is_drawn_as_bands() -> None:
    torch.manual_seed(0)
    data = GaussianProcessDataModule(shot=4, queries=9)
    one = data.stream("test")[0]
    assert isinstance(one.query.inputs, torch.Tensor)
    trainer: Any = SimpleNamespace(datamodule=data)
    learner = CNP(Pixels(1), task=data.task, width=4)
    outputs = learner.predict(learner.adapt(one.support), one.query.inputs).detach()
    spread = bands(trainer, learner, one, outputs)
    assert list(spread) == ["exact posterior", "predicted"]
    mean, deviation = posterior(
        one.support.inputs,  # type: ignore[arg-type]
        one.support.targets,
        one.query.inputs,
        length_scale=0.4,
        variance=1.0,
        noise=0.1,
    )
    torch.testing.assert_close(spread["exact posterior"], (mean, deviation))
    assert torch.equal(torch.cat(spread["predicted"], 1), outputs)
    predictions = predictions_by_step(learner, one, outputs)
    assert torch.equal(predictions["predicted"], outputs[:, :1])
    (axis,) = draw_function(one, predictions, spread).axes
    order = one.query.inputs.flatten().argsort()
    low, high = axis.lines[1:3]
    np.testing.assert_allclose(
        np.ravel(low.get_ydata()), (mean - 2 * deviation).flatten()[order], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.ravel(high.get_ydata()), (mean + 2 * deviation).flatten()[order], rtol=1e-6
    )
    (filled,) = axis.collections
    corners = filled.get_paths()[0].vertices
    expected = torch.cat([outputs[:, 0] - 2 * outputs[:, 1], outputs[:, 0] + 2 * outputs[:, 1]])
    assert np.isin(
        expected.numpy().round(4), np.asarray(corners)[:, 1].astype(np.float32).round(4)
    ).all()


def test_other_learners_and_benchmarks_have_no_bands() -> None:
    trainer: Any = SimpleNamespace(datamodule=None)
    learner = MAML(MLP(1, (6, 5)), task={"kind": "regression"})
    x = torch.randn(3, 1)
    assert bands(trainer, learner, Episode(Examples(x, x), Examples(x, x)), x) == {}


@pytest.mark.parametrize("batchnorm", ["transductive", "inductive"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_predictions_by_step_are_those_of_the_adaptation_curve(
    steps: int, batchnorm: Any
) -> None:
    torch.manual_seed(0)
    network = MLP(1, (6, 5), norm="batch")
    learner = MAML(
        network,
        task={"kind": "regression"},
        inner_lr=0.1,
        eval_inner_steps=steps,
        batchnorm=batchnorm,
    )
    x, y = torch.randn(1, 8, 1), torch.randn(1, 8, 1)
    batch = Episode(Examples(x[:, :5], y[:, :5]), Examples(x[:, 5:], y[:, 5:]))
    with torch.inference_mode():  # as Lightning evaluates
        batch = map_tensors(torch.clone, batch)
        outcome = learner.evaluate(batch)
        one = map_tensors(lambda tensor: tensor[0], batch)
        predictions = predictions_by_step(learner, one, outcome.outputs[0])
    names = {0: "before adaptation", 1: "after 1 step", 3: "after 3 steps"}
    names = {step: name for step, name in names.items() if step <= steps}
    assert list(predictions) == list(names.values())
    for step, name in names.items():
        mse = F.mse_loss(predictions[name], one.query.targets)
        torch.testing.assert_close(mse, outcome.metrics[f"mse_step{step}"][0])
    assert not torch.allclose(predictions["before adaptation"], predictions["after 1 step"])


def test_learners_without_inner_steps_have_one_prediction() -> None:
    learner = PrototypicalNetwork(MLP(1, (6, 5)), task={"kind": "classification", "way": 2})
    x = torch.randn(3, 1)
    assert list(predictions_by_step(learner, Episode(Examples(x, x), Examples(x, x)), x)) == [
        "predicted"
    ]


def test_a_run_has_pictures_and_curves(tmp_path: Path) -> None:
    run = fit(tmp_path, *SINUSOID, "--trainer.log_every_n_steps=1")
    with Image.open(run / "episode.png") as picture:
        assert min(picture.size) > 200
    events = EventAccumulator(str(run))
    events.Reload()
    assert "val/episode" in events.Tags()["images"]
    assert {"train/loss", "train/mse", "val/mse", "val/mse_ci95", "test/mse"} <= set(
        events.Tags()["scalars"]
    )
