"""MLTI by features: tasks of a meta-batch mixed at a layer, by plain autograd in float64."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mixtures import FUNCTIONS, TASK, WAY, assert_same_gradients, batch, functions, of_mixture
from slopes import assert_slope
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4
from fewshot.episodes.types import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners import ADML, ANIL, MAML, MMAML, MRMAML, PrototypicalNetwork, Reptile
from fewshot.learners.interpolation import ADDRESS

pytestmark = pytest.mark.usefixtures("double")


def made(kind: Any = MAML, task: Any = TASK, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return kind(MLP(4, [5, 6]), task=task, mlti="features", **arguments)


def losses(learner: Any, whole: MetaBatch) -> Tensor:
    (part,) = learner.as_batch(whole).parts
    return torch.cat([outcome.loss for outcome in learner.run(part, training=True)])


def members(targets: Tensor, label: int) -> list[int]:
    return [i for i, other in enumerate(targets.tolist()) if other == label]


def pairs(
    learner: Any, whole: MetaBatch
) -> Iterator[tuple[float, int, list[tuple[Tensor, Tensor, Tensor]]]]:
    """Of each episode lam, the layer, and of support and query inputs, partners, targets."""
    assert whole.numbers is not None
    for i, number in enumerate(whole.numbers.tolist()):
        rng = np.random.default_rng([learner.seed, number, ADDRESS])
        j = (i + 1) % whole.size if rng.random() < 0.75 else i
        regression = whole.stacked.query.targets.dim() == 3
        order = rng.permutation(0 if regression else WAY)
        share = rng.beta(2, 2)
        found = []
        for part in whole.stacked:
            assert isinstance(part.inputs, Tensor)
            x, others, y, labels = part.inputs[i], part.inputs[j], part.targets[i], part.targets[j]
            if regression:
                found.append((x, others, share * y + (1 - share) * labels))
                continue
            partners = torch.empty_like(x)
            for label in range(WAY):
                mine, its = members(y, label), members(labels, order[label])
                partners[mine] = others[its]
            found.append((x, partners, y))
        yield share, int(rng.integers(2)), found


@pytest.mark.parametrize("how", ["loop", "vmap"])
@pytest.mark.parametrize(
    ("kind", "task", "body"), [(MAML, TASK, 0), (MAML, FUNCTIONS, 0), (ANIL, TASK, 4)]
)
def test_loss_and_gradient_are_those_of_the_equation(
    kind: Any, task: Any, body: int, how: str
) -> None:
    learner = made(kind, task, inner_lr=0.2, inner_steps=2, episode_parallel=how)
    whole = batch(7) if task is TASK else functions(7)
    criterion: Any = F.cross_entropy if task is TASK else F.mse_loss
    parameters, expected, places = list(learner.parameters()), [], set()
    for share, place, ((x, x2, y), (q, q2, truth)) in pairs(learner, whole):
        w = list(parameters)
        for _ in range(2):
            loss = criterion(of_mixture(w, x, x2, share, place), y)
            slopes = torch.autograd.grad(loss, w[body:], create_graph=True)
            w = w[:body] + [a - 0.2 * b for a, b in zip(w[body:], slopes, strict=True)]
        expected.append(criterion(of_mixture(w, q, q2, share, place), truth))
        places.add(place)
    found, wanted = losses(learner, whole), torch.stack(expected)
    assert places == {0, 1}
    assert_same_gradients(found, wanted, parameters)


def test_the_outer_gradient_is_the_slope() -> None:
    learner, whole = made(inner_lr=0.2, inner_steps=2), batch(3)
    assert_slope(lambda: losses(learner, whole).mean(), list(learner.parameters()), 1e-6)


def test_a_metric_learner_mixes_all_episodes_at_once() -> None:
    learner, whole = made(PrototypicalNetwork), batch(4)
    first, _, second, _ = (m for m in learner.backbone.layers)
    w = [*first.parameters(), *second.parameters(), torch.eye(6), torch.zeros(6)]
    expected = []
    for share, place, parts in pairs(learner, whole):
        (support, y), (query, truth) = (
            (of_mixture(w, x, others, share, place), targets) for x, others, targets in parts
        )
        means = torch.stack([support[y == label].mean(0) for label in range(WAY)])
        logits = -torch.cdist(query, means).square()
        expected.append(F.cross_entropy(logits, truth))
    torch.testing.assert_close(losses(learner, whole), torch.stack(expected), rtol=1e-8, atol=1e-9)


def test_true_is_cutmix_for_images_alone() -> None:
    labels = torch.arange(WAY).repeat(2).expand(2, -1)
    images = Episode(*(Examples(torch.randn(2, 6, 1, 16, 16), labels) for _ in range(2)))
    learner = MAML(Conv4(1, 16, width=2), task=TASK, mlti=True)
    mixed = learner.as_batch(MetaBatch([images], torch.arange(2))).stacked
    assert isinstance(mixed.query.inputs, Tensor)
    assert not torch.equal(mixed.query.inputs, images.query.inputs)  # type: ignore[arg-type]
    torch.manual_seed(0)
    other = MAML(MLP(4, [5, 6]), task=TASK, mlti=True)
    torch.testing.assert_close(losses(other, batch()), losses(made(), batch()))


@pytest.mark.parametrize(
    ("learner", "arguments", "told"),
    [
        (MAML, {"task": FUNCTIONS, "mlti": "cutmix"}, r"is regression; set mlti: features"),
        (MAML, {"task": {"kind": "segmentation", "way": 1}, "mlti": True}, "leave mlti out"),
        (Reptile, {"task": TASK, "mlti": "features"}, r"Reptile does not.*or set mlti: cutmix"),
        (MRMAML, {"task": FUNCTIONS, "mlti": True}, r"MRMAML does not let it; leave mlti out$"),
        (MMAML, {"task": FUNCTIONS, "mlti": True}, r"MMAML does not let it; leave mlti out$"),
        (ADML, {"task": TASK, "mlti": "features"}, r"ADML does not"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(
    learner: Any, arguments: Any, told: str
) -> None:
    net: nn.Module = Conv4(1, 16) if arguments["task"]["kind"] == "segmentation" else MLP(4)
    with pytest.raises(FewshotError, match=told) as caught:
        learner(net, **arguments)
    assert "\n" not in str(caught.value)


def test_a_meta_batch_of_one_task_shares_nothing() -> None:
    for learner, whole in ((made(), batch(1)), (made(task=FUNCTIONS), functions(1))):
        with pytest.raises(FewshotError, match=r"has one alone; set meta_batch_size to 2 or more"):
            learner.as_batch(whole)
    texts = Examples({"x": torch.zeros(2, 3, 4)}, torch.zeros(2, 3, 1))
    with pytest.raises(FewshotError, match=r"mlti mixes vectors.*leave mlti out"):
        made(task=FUNCTIONS).as_batch(MetaBatch([Episode(texts, texts)], torch.arange(2)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_compiled_code_gives_the_same(how: Any) -> None:
    found = []
    for compile in (False, True):
        learner = made(episode_parallel=how, compile=compile)
        value = losses(learner, batch())
        found.append([value, *torch.autograd.grad(value.sum(), list(learner.parameters()))])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
