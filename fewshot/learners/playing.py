"""Trials of a whole meta-batch at once, for learners that remember and for reference policies.

Shapes: B tasks, n trials of each, T steps of a trial, F facts.
"""

import torch
from torch import Tensor

from fewshot.environments.noise import Noise
from fewshot.environments.play import Actor, Trials, play
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.outcome import Outcome
from fewshot.tasks.control import Control, Steps


def facts_of(examples: Examples) -> Tensor:
    """The facts (B * n, F) of stacked examples."""
    assert isinstance(examples.inputs, Tensor)
    return examples.inputs.flatten(0, 1)


def play_all(task: Control, actor: Actor, query: Examples, steps: int | None = None) -> Trials:
    """The trials (B * n, T, ...) of stacked examples.

    Raises:
        FewshotError: a reward is not finite; the trial and the step are named.
    """
    trials = play(task.place, actor, facts_of(query), Noise(query.targets.flatten()), steps)
    if not (finite := trials.rewards.isfinite()).all():
        trial, step = (~finite).nonzero()[0].tolist()
        raise FewshotError(
            f"the reward of step {step} of task {trial // query.targets.shape[1]} of the meta-batch"
            f" is {trials.rewards[trial, step].item()}; have {task.place.kind} give finite rewards"
        )
    return trials


def outcome_of(task: Control, trials: Trials, size: int) -> Outcome:
    """The outcome of `size` tasks; the loss is minus the return, for nothing is compared with."""
    flat = trials.rewards
    outputs = flat.new_zeros(*flat.shape, task.policy.size)
    steps = Steps(
        trials.actions, outputs, torch.zeros_like(flat), flat, trials.mask, trials.regrets
    )
    shown = torch.cat([trials.observations, steps.packed()], -1)
    shown = shown.reshape(size, -1, *shown.shape[1:])
    by_task = Steps(*(part.reshape(size, -1, *part.shape[1:]) for part in steps))
    metrics = torch.func.vmap(lambda *parts: task.judged(Steps(*parts)))(*by_task)
    return Outcome(-metrics["return"], metrics, shown)
