"""MetaMix against its equation by plain autograd in float64; where layers may be mixed."""

from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mixtures import (
    FUNCTIONS,
    NUMBER,
    SEEN,
    TASK,
    WAY,
    assert_same_gradients,
    batch,
    functions,
    network,
    of_mixture,
)
from slopes import assert_slope
from torch import Tensor, nn

from fewshot.backbones import MLP, Backbone, Conv4, ResNet12
from fewshot.datamodules import GlyphsDataModule, SinusoidDataModule
from fewshot.engine.mixing import Mixture, mixture_in, places_to_mix
from fewshot.episodes.types import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, IMAML, MAML, TAML, MetaSGD, ProtoMAML
from fewshot.learners.optimization.meta_mix import ADDRESS

pytestmark = pytest.mark.usefixtures("double")


def made(kind: type[MAML] = MAML, task: Any = TASK, **arguments: Any) -> Any:
    torch.manual_seed(0)
    options = {"inner_lr": 0.2, "inner_steps": 2, "metamix": True, **arguments}
    return kind(MLP(4, [5, 6]), task=task, **options)


def losses(learner: Any, whole: MetaBatch) -> Tensor:
    (part,) = learner.as_batch(whole).parts
    return torch.cat([outcome.loss for outcome in learner.run(part, training=True)])


def drawn(learner: Any, whole: MetaBatch) -> list[tuple[float, int, np.ndarray[Any, Any]]]:
    """What is drawn for each episode, one number after the other."""
    found = []
    assert whole.numbers is not None
    for number in whole.numbers.tolist():
        rng = np.random.default_rng([learner.seed, number, ADDRESS])
        share = rng.beta(2, 2)
        place = int(rng.integers(2))
        order = np.concatenate([rng.permutation(SEEN) for _ in range(2)])[:NUMBER]
        found.append((share, place, order))
    return found


def written_out(learner: Any, whole: MetaBatch, parameters: list[Tensor], body: int = 0) -> Tensor:
    """The losses of MAML on mixtures; the first `body` parameters do not adapt."""
    regression = whole.stacked.query.targets.dim() == 3
    criterion: Any = F.mse_loss if regression else F.cross_entropy
    expected = []
    for i, (share, place, order) in enumerate(drawn(learner, whole)):
        (x, y), (queries, truth) = (
            [tensor[i] for tensor in (part.inputs, part.targets)]  # type: ignore[index]
            for part in whole.stacked
        )
        w = list(parameters)
        for _ in range(2):
            slopes = torch.autograd.grad(criterion(network(w, x), y), w[body:], create_graph=True)
            moved = [a - 0.2 * b for a, b in zip(w[body:], slopes, strict=True)]
            w = w[:body] + moved
        outputs = of_mixture(w, queries, x[order], share, place)
        loss = share * criterion(outputs, truth) + (1 - share) * criterion(outputs, y[order])
        expected.append(loss)
    return torch.stack(expected)


@pytest.mark.parametrize("how", ["loop", "vmap"])
@pytest.mark.parametrize(
    ("kind", "task", "body"), [(MAML, TASK, 0), (MAML, FUNCTIONS, 0), (ANIL, TASK, 4)]
)
def test_loss_and_gradient_are_those_of_the_equation(
    kind: type[MAML], task: Any, body: int, how: str
) -> None:
    learner = made(kind, task, episode_parallel=how)
    whole = batch() if task is TASK else functions()
    assert len({place for _, place, _ in drawn(learner, whole)}) == 2, "both layers are drawn"
    parameters = list(learner.parameters())
    found, wanted = losses(learner, whole), written_out(learner, whole, parameters, body)
    assert_same_gradients(found, wanted, parameters)


def test_the_outer_gradient_is_the_slope() -> None:
    learner, whole = made(episode_parallel="vmap"), batch()
    assert_slope(lambda: losses(learner, whole).mean(), list(learner.parameters()), 1e-6)


@pytest.mark.parametrize("kind", [MetaSGD, ProtoMAML])
def test_kin_are_the_same_by_loop_and_vmap(kind: Any) -> None:
    found = []
    for how in ("loop", "vmap"):
        torch.manual_seed(0)
        learner = kind(MLP(4, [5, 6]), task=TASK, metamix=True, episode_parallel=how)
        value = losses(learner, batch())
        slopes = torch.autograd.grad(value.sum(), list(learner.parameters()))
        found.append([value, *slopes])
        plain = torch.cat([o.loss for o in learner.run(batch().stacked, training=True)])
        assert (plain - value).abs().min() > 1e-4
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_inner_steps_may_be_recomputed_and_norms_are_each_batchs_own() -> None:
    torch.manual_seed(3)
    labels = [torch.arange(WAY).repeat(n).expand(2, -1) for n in (2, 3)]
    images = Episode(*(Examples(torch.randn(*y.shape, 1, 16, 16), y) for y in labels))
    found = []
    for options in ({"checkpoint_inner_steps": True}, {}, {"episode_parallel": "vmap"}):
        torch.manual_seed(0)
        chosen: Any = {"episode_parallel": "loop", **options}
        learner = MAML(Conv4(1, 16, width=3), task=TASK, metamix=True, inner_lr=0.1, **chosen)
        value = losses(learner, MetaBatch([images], torch.tensor([4, 5])))
        assert learner.network.mixed_at == tuple(f"blocks.{i}.0" for i in range(4))
        found.append([value, *torch.autograd.grad(value.sum(), list(learner.parameters()))])
    for one, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


class Past(Backbone):
    """A layer, one that adds to what it gets, one that is run twice, one that is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, 4)
        self.first, self.added = nn.Linear(4, 5), nn.Linear(5, 5)
        self.twice, self.last = nn.Linear(5, 5), nn.Linear(5, 5)
        self.out_features = 5

    def forward(self, inputs: Any) -> Tensor:
        hidden = self.first(inputs).tanh()
        hidden = hidden + self.added(hidden).tanh()
        last: Tensor = self.last(self.twice(self.twice(hidden).tanh()).tanh())
        return last


class Around(Backbone):
    """Another's network of several parts, in a shell."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.out_features = Past(), 5

    def forward(self, inputs: Any) -> Tensor:
        result: Tensor = self.network(inputs)
        return result


class Behind(Backbone):
    """A network on what it takes of its inputs before its only layer, and again after it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out_features = nn.Linear(4, 4), 4

    def forward(self, inputs: Any) -> Tensor:
        result: Tensor = inputs + self.layer(inputs)
        return result


def test_layers_are_those_that_all_passes_through() -> None:
    torch.manual_seed(0)
    vectors, images = torch.randn(6, 4), torch.randn(6, 3, 16, 16)
    for net, inputs, expected in (
        (MLP(4, [5, 6], norm="layer"), vectors, ("layers.0", "layers.3")),
        (Past(), vectors, ("first", "last")),
        (Around(), vectors, ("network.first", "network.last")),
        (Behind(), vectors, ("",)),
        (ResNet12(3, 16, widths=(2, 3, 4, 5)), images, tuple(f"blocks.{i}" for i in range(4))),
    ):
        assert places_to_mix(net, net, inputs) == expected
    torch.manual_seed(5)
    following = torch.rand(1)
    torch.manual_seed(5)
    places_to_mix(net, net, inputs)
    assert torch.equal(torch.rand(1), following), "what training draws is the same as without"

    class Nowhere(Behind):
        def forward(self, inputs: Any) -> Tensor:
            return super().forward(inputs) + torch.randn_like(inputs)

    with pytest.raises(FewshotError, match=r"Nowhere has no layer that all .*leave out metamix"):
        places_to_mix(Nowhere(), Nowhere(), vectors)


def test_what_cannot_be_mixed_is_refused_in_one_line() -> None:
    for kind in (TAML, IMAML):
        with pytest.raises(FewshotError, match=f"{kind.__name__} has a loss of its own.*MAML"):
            kind(MLP(4), task=TASK, metamix=True)
    with pytest.raises(FewshotError, match=r"task is segmentation; leave metamix out"):
        MAML(Conv4(1, 16), task={"kind": "segmentation", "way": 1}, metamix=True)
    with pytest.raises(FewshotError, match="leave one of them out"):
        made(mlti="features")
    with pytest.raises(FewshotError, match=r"embed_together.*metamix"):
        made(ANIL, embed_together=True)
    texts = Examples({"tokens": torch.zeros(2, 6, 3)}, torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(FewshotError, match=r"metamix mixes images or vectors.*leave metamix out"):
        made().as_batch(MetaBatch([Episode(texts, texts)], torch.arange(2)))


def trained(steps: int, resume: str | None = None, save: str | None = None) -> Any:
    torch.set_default_dtype(torch.float32)
    data = SinusoidDataModule(shot=4, queries=6, meta_batch_size=3, train_episodes=3)
    torch.manual_seed(0)
    learner = MAML(MLP(1, [8]), task=data.task, metamix=True)
    trainer = L.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, data, ckpt_path=resume)
    if save:
        trainer.save_checkpoint(save)
    return list(learner.parameters())


def test_a_resumed_run_mixes_what_it_would_have(tmp_path: Any) -> None:
    path = str(tmp_path / "half.ckpt")
    whole = trained(4)
    half = trained(2, save=path)
    assert not all(map(torch.equal, whole, half))
    assert all(map(torch.equal, whole, trained(4, resume=path)))


def test_evaluation_and_a_loss_that_diverges_are_those_of_plain_queries() -> None:
    learner, whole = made(), batch()
    mixed = learner.as_batch(whole)
    mixture = mixture_in(mixed.stacked.query.inputs)
    assert isinstance(mixture, Mixture)
    assert torch.equal(mixture.first, whole.stacked.query.inputs)  # type: ignore[arg-type]
    with torch.no_grad():
        next(learner.parameters()).fill_(float("nan"))
    assert "episode 0 of the meta-batch diverges" in learner._diverged(3, mixed)


@pytest.mark.slow
def test_compiled_code_gives_the_same() -> None:
    torch.set_default_dtype(torch.float32)
    data = GlyphsDataModule(way=3, queries=2, meta_batch_size=2)
    data.setup("fit")
    whole = next(iter(data.train_dataloader()))
    found = []
    for how, compile in (("loop", False), ("loop", True), ("vmap", True)):
        torch.manual_seed(0)
        learner = MAML(
            Conv4(1, 28, width=4), task=data.task, metamix=True, inner_steps=2,
            episode_parallel=how, compile=compile,
        )  # fmt: skip
        ready = data.on_after_batch_transfer(whole, 0)
        value = losses(learner, ready)
        found.append([value, *torch.autograd.grad(value.sum(), list(learner.parameters()))])
    for one, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
