"""What is looked at once, when the first meta-batch has come."""

import torch

from fewshot.engine.mixing import unmixed
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.trials import untouched
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.learners.optimization.evaluation import InnerLoopEvaluation
from fewshot.learners.optimization.network import give_shapes
from fewshot.learners.optimization.parameters import refuse_unused, without_gradient


def look_once(learner: InnerLoopEvaluation, episodes: Episode, training: bool) -> None:
    """Look at the first stacked episodes that come, and again at the first to be trained on.

    Raises:
        FewshotError: the attack does not take them, or weights have no part in the support's loss.
    """
    runner = learner.runner
    if learner.attack is not None and runner.first_time("attack"):
        for part in episodes:
            learner.attack.check(unmixed(part).inputs)
    support = map_tensors(lambda tensor: tensor[0], episodes.support)
    if runner.first_time("shapes"):
        give_shapes(learner.network, learner.task.probe(support))
    our_layer_adapts_alone = learner.head_only and not learner.head_is_given
    if training and not our_layer_adapts_alone and runner.first_time("support"):
        check_support(learner, support, learner.inner_steps)


def check_support(learner: InnerLoopEvaluation, support: Examples, steps: int) -> None:
    """Refuse weights that should adapt but have no part in the loss of a support (S, ...).

    A run that goes on looks again, and must go on as it would have: nothing is left of it.

    Raises:
        FewshotError: there are such weights.
    """
    kept = untouched(learner.network, support.targets.device)
    support = map_tensors(torch.clone, support)
    with kept, torch.enable_grad(), EpisodeNorm(exact_vmap=False):
        inside = Examples(learner.embedded(support.inputs), support.targets)
        start = next(iter(learner.inner_loop(inside, steps)))
        inside = learner.examples_for(start, inside)
        weights = {name: weight.detach().requires_grad_() for name, weight in start.items()}
        loss = learner.task.support_loss(
            learner.forward_with(weights, inside.inputs), inside.targets
        )
        refuse_unused(without_gradient(loss, weights))
