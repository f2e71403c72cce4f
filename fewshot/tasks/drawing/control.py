"""Pictures of acting: paths on a plane, and regret against the steps of a trial."""

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from fewshot.environments.bandit_policies import RandomActor, ThompsonIndex, UCB1Index
from fewshot.environments.base import Environment
from fewshot.environments.noise import Noise
from fewshot.environments.play import Actor, play
from fewshot.environments.psrl import PosteriorSampling
from fewshot.environments.tabular_mdp import TabularMDP
from fewshot.tasks.base import EpisodeView
from fewshot.tasks.drawing.style import INK, LINE, bare, headed

GOAL, OTHERS = "#bc4c00", ("#8250df", "#1a7f37", "#6e7781")


def draw_paths(task: Any, view: EpisodeView) -> Figure:
    """The paths of an episode's query, a panel before adaptation and after each step shown."""
    panels = view.outputs_by_step()
    figure = Figure(figsize=(0.3 + 3.2 * len(panels), 3.5))
    goal = view.episode.query.inputs
    assert isinstance(goal, Tensor)
    for place, (name, outputs) in enumerate(panels.items(), start=1):
        axis = figure.add_subplot(1, len(panels), place)
        places, steps = task.played(outputs)
        for path, mask in zip(places[: view.queries], steps.mask, strict=False):
            walked = path[mask > 0]
            axis.plot(*walked.T.tolist(), color=LINE, alpha=0.7, linewidth=1)
        axis.plot(*goal[0].tolist(), "*", color=GOAL, markersize=12, label="goal")
        axis.plot(0, 0, "o", color=INK, markersize=4, label="start")
        total = steps.rewards.sum(1).mean().item()
        headed(axis, f"{name}: return {total:.1f}")
        axis.set_aspect("equal", adjustable="datalim")
        axis.grid(color="#d8dee4", linewidth=0.8)
        axis.tick_params(length=0, labelsize=8, colors=INK)
        axis.spines[:].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.subplots_adjust(0.08, 0.1, 0.98, 0.9, wspace=0.2)
    return figure


def draw_regret(task: Any, view: EpisodeView) -> Figure:
    """The regret of an episode's trials by steps, beside that of policies that know the prior."""
    facts, seeds, _ = view.episode.query
    assert isinstance(facts, Tensor)
    curves = {"learner": task.played(view.outputs())[1].regrets}
    for name, actor in beside(task.place).items():
        curves[name] = play(task.place, actor, facts, Noise(seeds)).regrets
    figure = Figure(figsize=(7, 3.6))
    axis = figure.add_axes((0.09, 0.14, 0.62, 0.8))
    colours = (LINE, *OTHERS)[: len(curves)]
    for (name, regrets), colour in zip(curves.items(), colours, strict=True):
        total = regrets.cumsum(1).mean(0).tolist()
        width = 2.2 if name == "learner" else 1.2
        axis.plot(range(1, len(total) + 1), total, color=colour, linewidth=width, label=name)
    axis.set_xlabel("pulls" if task.place.horizon == 1 else "steps", color=INK)
    axis.set_ylabel("regret", color=INK)
    bare(axis, "y", 9)
    figure.legend(loc="upper right", frameon=False, fontsize=9)
    return figure


def beside(place: Environment) -> dict[str, Actor]:
    """The policies whose regret is drawn beside a learner's."""
    by_chance: Actor = RandomActor(place)
    if isinstance(place, TabularMDP):
        return {"PSRL": PosteriorSampling(place), "random": by_chance}
    return {
        "Thompson sampling": ThompsonIndex(place, optimistic=False),
        "UCB1, scale 0.2": UCB1Index(place, 0.2),
        "random": by_chance,
    }
