"""Meta-dropout against its equation by plain autograd in float64, and the noise itself."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixtures import FUNCTIONS, TASK, WAY, assert_same_gradients, batch, functions
from scipy import stats
from slopes import assert_slope
from torch import Tensor

from fewshot.backbones import MLP, Conv4
from fewshot.engine.randomness import content_seed, standard_normal
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, CAVIA, FOMAML, MAML, TAML, MetaSGD, ProtoMAML

pytestmark = pytest.mark.usefixtures("double")


def made(kind: Any = MAML, task: Any = TASK, **arguments: Any) -> Any:
    torch.manual_seed(0)
    options = {"inner_lr": 0.2} if kind is not MetaSGD else {}
    options |= {"inner_steps": 2, "meta_dropout": True, **arguments}
    learner = kind(MLP(4, [5, 6]), task=task, **options)
    for parameter in learner.noise.parameters():  # at first they make next to nothing
        torch.nn.init.normal_(parameter, std=0.5)
    return learner


def losses(learner: Any, episodes: Episode) -> Tensor:
    return torch.cat([outcome.loss for outcome in learner.run(episodes, training=True)])


def network(
    w: Sequence[Tensor], phi: Sequence[Tensor], x: Tensor, draw: tuple[Tensor, int] | None
) -> Tensor:
    """Outputs of x (n, 4), each layer scaled by softplus(its generator + noise)."""

    def noise(place: int, like: Tensor) -> Any:
        return 0.0 if draw is None else standard_normal(draw[0], draw[1] * 3 + place, like)

    for place in (0, 1):
        alpha = F.linear(x, phi[2 * place], phi[2 * place + 1])
        z = F.softplus(alpha + noise(place, alpha))
        x = torch.relu(F.linear(x, w[2 * place], w[2 * place + 1]) * z)
    outputs: Tensor = F.linear(x, w[4], w[5])
    result: Tensor = outputs + F.softplus(F.linear(x, phi[4], phi[5])) * noise(2, outputs)
    return result


def adapted(learner: Any, x: Tensor, y: Tensor, samples: int = 1) -> Any:
    criterion: Any = F.cross_entropy if y.dim() == 1 else F.mse_loss
    w, phi = list(learner.network.backbone.parameters()), list(learner.noise.parameters())
    w += list(learner.network.head.parameters())
    for step in range(2):
        draws = [(content_seed(x), step * samples + i) for i in range(samples)]
        values = [criterion(network(w, phi, x, draw), y) for draw in draws]
        slopes = torch.autograd.grad(torch.stack(values).mean(), w, create_graph=True)
        w = [a - 0.2 * b for a, b in zip(w, slopes, strict=True)]
    return w, phi


def written_out(learner: Any, episodes: Episode) -> Tensor:
    expected, whole = [], zip(*(zip(p.inputs, p.targets, strict=True) for p in episodes))  # noqa: B905
    for (x, y), (q, truth) in whole:
        criterion: Any = F.cross_entropy if y.dim() == 1 else F.mse_loss
        w, phi = adapted(learner, x, y)
        expected.append(criterion(network(w, phi, q, None), truth))
    return torch.stack(expected)


@pytest.mark.parametrize("task", [TASK, FUNCTIONS], ids=["classes", "functions"])
@pytest.mark.parametrize("how", ["loop", "recomputed", "vmap"])
def test_loss_and_gradient_are_those_of_the_equation(task: Any, how: str) -> None:
    again = how == "recomputed"
    learner = made(
        task=task, episode_parallel="loop" if again else how, checkpoint_inner_steps=again
    )
    episodes = (batch() if task is TASK else functions()).stacked
    parameters = list(learner.parameters())
    assert len(parameters) == 12, "the network's and the generators'"
    found, wanted = losses(learner, episodes), written_out(learner, episodes)
    assert_same_gradients(found, wanted, parameters)


def test_the_outer_gradient_is_the_slope_of_the_noise_too() -> None:
    learner, episodes = made(episode_parallel="vmap"), batch().stacked
    assert_slope(lambda: losses(learner, episodes).mean(), list(learner.noise.parameters()), 1e-6)
    assert_slope(lambda: losses(learner, episodes).mean(), list(learner.parameters()), 1e-6)


def test_evaluation_takes_the_mean_over_draws() -> None:
    learner, episodes = made(meta_dropout_samples=3), batch().stacked
    learner.eval()
    whole: Any = episodes.support
    x, y = whole.inputs[0], whole.targets[0]
    outputs = learner.predict(learner.adapt(Examples(x, y)), x)
    w, phi = adapted(learner, x, y, 3)
    torch.testing.assert_close(outputs, network(w, phi, x, None))
    one, two = (learner.adapt(Examples(x, y)).weights for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", [BOIL, MetaSGD, TAML])
def test_kin_are_the_same_by_loop_and_vmap(kind: Any) -> None:
    found = []
    for how in ("loop", "vmap"):
        learner = made(kind, episode_parallel=how)
        value = losses(learner, batch().stacked)
        found.append([value, *torch.autograd.grad(value.sum(), list(learner.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_convolutions_have_generators_of_their_own_shape() -> None:
    torch.manual_seed(0)
    learner: Any = MAML(Conv4(1, 16, width=3), task=TASK, meta_dropout=True)
    assert learner.noise is not None
    *layers, head = learner.noise.generators
    kernels = [block[0].weight.shape for block in learner.backbone.blocks]
    assert [layer.weight.shape for layer in layers] == kernels
    assert head.weight.shape == (1, 3)
    assert not any(name.startswith("noise") for name in learner.adapted_names)
    labels = torch.arange(WAY).repeat(2).expand(2, -1)
    images = Episode(*(Examples(torch.randn(2, 6, 1, 16, 16), labels) for _ in range(2)))
    found = []
    for how in ("loop", "vmap"):
        learner.episode_parallel = how
        found.append(losses(learner, images))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_noise_is_standard_normal_and_a_function_of_its_numbers() -> None:
    like, seed = torch.zeros(3, 20_000), content_seed(torch.randn(4, 5))
    one, other = (standard_normal(seed, stream, like).double() for stream in (0, 1))
    assert stats.kstest(one.flatten().numpy(), "norm").pvalue > 1e-3
    for a, b in ((one, other), (one[0], one[1]), (one[0, 1:], one[0, :-1])):
        assert abs(stats.pearsonr(a.flatten(), b.flatten()).statistic) < 0.03
    assert torch.equal(standard_normal(seed, 0, like).double(), one)
    inputs = torch.randn(3, 4, 5, dtype=torch.float32)
    seeds = torch.stack([content_seed(x) for x in inputs])
    assert torch.equal(torch.func.vmap(content_seed)(inputs), seeds)
    assert len(set(seeds.tolist())) == 3
    mapped = torch.func.vmap(lambda seed: standard_normal(seed, 2, like))(seeds)
    assert torch.equal(mapped[1], standard_normal(seeds[1], 2, like))
    near = inputs[0].clone()
    near[3, 4] = near[3, 4].nextafter(near.new_tensor(9.0))
    assert content_seed(near) != seeds[0]
    assert content_seed({"a": inputs[0], "b": inputs[1]}) != content_seed(
        {"a": inputs[1], "b": inputs[0]}
    )


def test_what_takes_no_noise_is_refused_in_one_line() -> None:
    for kind in (ANIL, CAVIA, FOMAML, ProtoMAML):
        with pytest.raises(
            FewshotError, match=f"meta_dropout is for MAML.*not for {kind.__name__}"
        ):
            kind(MLP(4), task=TASK, meta_dropout=True)
    with pytest.raises(FewshotError, match=r"set first_order: false, or leave meta_dropout out"):
        MAML(MLP(4), task=TASK, meta_dropout=True, first_order=True)
    with pytest.raises(FewshotError, match=r"adapts the head alone.*set adapt: all"):
        MAML(MLP(4), task=TASK, meta_dropout=True, adapt="head")
    with pytest.raises(FewshotError, match=r"is segmentation; leave meta_dropout out"):
        MAML(Conv4(1, 16), task={"kind": "segmentation", "way": 1}, meta_dropout=True)
    with pytest.raises(FewshotError, match=r"meta_dropout_samples is 3.*set meta_dropout: true"):
        MAML(MLP(4), task=TASK, meta_dropout_samples=3)


def test_it_is_not_compiled() -> None:
    with pytest.raises(FewshotError, match="which the compiler does not take; set compile: false"):
        made(compile=True)
