"""The optimization-based family acts: the same returns however it is run, exact meta-gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot import CAVIA, FOMAML, MAML, MLP, MetaSGD, NavigationDataModule, Reptile
from fewshot.datamodules import BanditDataModule, ControlDataModule
from fewshot.episodes.types import Episode, map_tensors
from fewshot.learners import OptimizationLearner
from fewshot.learners.optimization.held import held

LEARNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "MAML": (MAML, {"inner_lr": 0.1, "inner_steps": 2}),
    "FOMAML": (FOMAML, {"inner_lr": 0.1}),
    "MetaSGD": (MetaSGD, {}),
    "CAVIA": (CAVIA, {"inner_lr": 0.1}),
    "Reptile": (Reptile, {"inner_lr": 0.01, "inner_steps": 2}),
}


def made(
    name: str, how: str = "vmap", loss: Any = "lvc", bandit: bool = False, **more: Any
) -> tuple[OptimizationLearner, Episode]:
    data: ControlDataModule = NavigationDataModule(
        horizon=6, shot=3, queries=3, meta_batch_size=3, train_episodes=3, inner_loss=loss
    )
    if bandit:
        data = BanditDataModule(3, 4, shot=2, meta_batch_size=3, train_episodes=3, inner_loss=loss)
    cls, arguments = LEARNERS[name]
    torch.manual_seed(0)
    learner = cls(
        MLP(data.in_features, (5,)),
        task=data.task,
        episode_parallel=how,
        **{"eval_curve": "all", **arguments, **more},
    ).double()
    batch = next(iter(data.train_dataloader())).stacked
    return learner, map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)


def gradients(learner: OptimizationLearner, episodes: Episode) -> dict[str, Tensor]:
    torch.stack([o.loss.sum() for o in learner.run(episodes, training=True)]).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bandit", [False, True])
@pytest.mark.parametrize("name", LEARNERS)
def test_loop_and_vmap_give_the_same_returns_and_gradients(name: str, bandit: bool) -> None:
    found = []
    for how, chunk in (("loop", None), ("vmap", None), ("vmap", 2)):
        learner, episodes = made(name, how, bandit=bandit, episodes_per_chunk=chunk)
        judged = learner.evaluate(episodes)
        slopes = gradients(learner, episodes)
        assert slopes
        found.append({**judged.metrics, "shown": judged.outputs, **slopes})
    assert "return_step0" in found[0]
    for other in found[1:]:
        for key, value in found[0].items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-10, msg=key)


@pytest.mark.parametrize("loss", ["lvc", "dice", "log_likelihood"])
@pytest.mark.parametrize("bandit", [False, True])
def test_meta_gradients_are_finite_differences_of_what_was_played(loss: str, bandit: bool) -> None:
    """The loss of held trials as a function of the initialisation."""
    learner, episodes = made("MAML", "loop", loss, bandit)
    fixed = held(learner, episodes)
    slopes = gradients(learner, fixed)

    def value(shift: float, direction: dict[str, Tensor]) -> float:
        moved, _ = made("MAML", "loop", loss, bandit)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p.add_(shift * direction[name])
        return sum(float(o.loss.sum()) for o in moved.run(fixed, training=True))

    torch.manual_seed(1)
    direction = {name: torch.randn_like(p) for name, p in learner.named_parameters()}
    numeric = (value(1e-5, direction) - value(-1e-5, direction)) / 2e-5
    exact = sum(float((slopes[name] * direction[name]).sum()) for name in slopes)
    assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-7)
    # what is played anew has the same loss and the same gradient where it was played
    fresh, _ = made("MAML", "loop", loss, bandit)
    for name, slope in gradients(fresh, episodes).items():
        torch.testing.assert_close(slope, slopes[name], rtol=0, atol=1e-10)


def test_each_inner_step_plays_anew() -> None:
    learner, episodes = made("MAML")
    support = held(learner, episodes).support
    assert support.targets.shape[:3] == (3, 2, 18)
    assert not torch.equal(support.targets[:, 0], support.targets[:, 1])


def test_the_two_verbs_act() -> None:
    learner, episodes = made("MAML")
    one = map_tensors(lambda tensor: tensor[0], episodes)
    adapted = learner.adapt(one.support)
    observations = torch.rand(7, 2, dtype=torch.float64)
    assert learner.predict(adapted, observations).shape == (7, 4)
    steps = learner.outputs_by_step(one, learner.evaluate(episodes).outputs[0])
    assert list(steps) == ["before adaptation", "after 1 step", "after 2 steps"]
    torch.testing.assert_close(
        learner.evaluate(episodes).metrics["return_step0"][0],
        learner.task.played(steps["before adaptation"])[1].rewards.sum(1).mean(),  # type: ignore[attr-defined]
    )
