"""Pictures of episodes: what the learner and the benchmark know of the first one."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import SINUSOID, fit
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot.backbones import MLP, Pixels
from fewshot.callbacks.figures import pixels
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.datamodules import GaussianProcessDataModule, SinusoidDataModule
from fewshot.episodes.types import Episode, Examples, map_tensors, stack
from fewshot.learners import CNP, MAML, PrototypicalNetwork
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Regression
from fewshot.tasks.gaussian_process import posterior


def test_what_is_known_of_the_spread_is_drawn_as_bands() -> None:
    torch.manual_seed(0)
    data = GaussianProcessDataModule(shot=4, queries=9)
    one = data.stream("test")[0]
    assert isinstance(one.query.inputs, torch.Tensor)
    learner = CNP(Pixels(1), task=data.task, width=4)
    outputs = learner.predict(learner.adapt(one.support), one.query.inputs).detach()
    view = EpisodePicture().view(learner, stack([one]), data)
    torch.testing.assert_close(view.outputs(), outputs)
    assert list(view.references()) == ["exact posterior"]
    mean, deviation = posterior(
        one.support.inputs,  # type: ignore[arg-type]
        one.support.targets,
        one.query.inputs,
        length_scale=0.4,
        variance=1.0,
        noise=0.1,
    )
    torch.testing.assert_close(view.references()["exact posterior"], (mean, deviation))
    figure = learner.task.picture(view)
    assert figure is not None
    (axis,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["true", "exact posterior ± 2", "± 2 deviations", "predicted", "support"]
    order = one.query.inputs.flatten().argsort()
    low, high = axis.lines[1:3]
    np.testing.assert_allclose(
        np.ravel(low.get_ydata()), (mean - 2 * deviation).flatten()[order], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.ravel(high.get_ydata()), (mean + 2 * deviation).flatten()[order], rtol=1e-6
    )
    predicted = axis.lines[3]
    np.testing.assert_allclose(np.ravel(predicted.get_ydata()), outputs[order, 0], rtol=1e-5)
    (filled,) = axis.collections
    corners = filled.get_paths()[0].vertices
    expected = torch.cat([outputs[:, 0] - 2 * outputs[:, 1], outputs[:, 0] + 2 * outputs[:, 1]])
    assert np.isin(
        expected.numpy().round(4), np.asarray(corners)[:, 1].astype(np.float32).round(4)
    ).all()


@pytest.mark.parametrize("benchmark", [None, SinusoidDataModule()])
def test_other_learners_and_benchmarks_have_no_bands(benchmark: Any) -> None:
    learner = MAML(MLP(1, (6, 5)), task={"kind": "regression"})
    x = torch.randn(1, 3, 1)
    view = EpisodePicture().view(learner, Episode(Examples(x, x), Examples(x, x)), benchmark)
    assert view.references() == {}
    figure = learner.task.picture(view)
    assert figure is not None
    (axis,) = figure.axes
    assert not axis.collections
    assert [line.get_label() for line in axis.lines] == [
        *("true", "before adaptation", "after 1 step", "support")
    ]


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
        eval_curve="all",
        batchnorm=batchnorm,
    )
    x, y = torch.randn(1, 8, 1), torch.randn(1, 8, 1)
    batch = Episode(Examples(x[:, :5], y[:, :5]), Examples(x[:, 5:], y[:, 5:]))
    with torch.inference_mode():  # as Lightning evaluates
        batch = map_tensors(torch.clone, batch)
        outcome = learner.evaluate(batch)
        one = map_tensors(lambda tensor: tensor[0], batch)
        predictions = learner.outputs_by_step(one, outcome.outputs[0])
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
    found = learner.outputs_by_step(Episode(Examples(x, x), Examples(x, x)), x)
    assert list(found) == ["predicted"]
    assert torch.equal(found["predicted"], x)


def test_what_has_no_picture_is_not_evaluated() -> None:
    class Silent(PrototypicalNetwork):
        def evaluate(self, meta_batch: Episode) -> Outcome:
            raise AssertionError("nobody draws it")

    learner = Silent(MLP(3, (5,)), task={"kind": "classification", "way": 2})
    x, labels = torch.randn(1, 2, 3), torch.tensor([[0, 1]])
    view = EpisodePicture().view(learner, Episode(Examples(x, labels), Examples(x, labels)), None)
    assert learner.task.picture(view) is None
    # two values a point are no function to draw
    pairs = Episode(Examples(x[..., :1], x[..., :2]), Examples(x[..., :1], x[..., :2]))
    assert Regression(2).picture(EpisodePicture().view(learner, pairs, None)) is None


def test_a_run_has_pictures_and_curves(tmp_path: Path) -> None:
    run = fit(tmp_path, *SINUSOID, "--trainer.log_every_n_steps=1", drawn=True)
    with Image.open(run / "episode.png") as picture:
        assert min(picture.size) > 200
    events = EventAccumulator(str(run))
    events.Reload()
    assert "val/episode" in events.Tags()["images"]
    assert {"loss/train", "mse/train", "mse/val", "mse/val_ci95", "mse/test"} <= set(
        events.Tags()["scalars"]
    )


def test_nothing_is_left_of_a_drawn_figure() -> None:
    # or a run with many validations grows by megabytes each time
    def make() -> Figure:
        figure = Figure()
        figure.subplots().plot([0, 1])
        left.append(weakref.ref(figure))
        return figure

    left: list[weakref.ref[Figure]] = []
    gc.disable()
    try:
        for _ in range(3):
            assert pixels(make, dpi=50) is not None
        assert [figure() for figure in left[1:]] == [None, None]
    finally:
        gc.enable()
    assert pixels(lambda: None, dpi=50) is None
