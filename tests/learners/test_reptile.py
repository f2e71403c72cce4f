"""Reptile against torch.optim on a plain copy, in float64: update, mini-batches, evaluation."""

import copy
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import Weights
from fewshot.engine.randomness import orders
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import Reptile
from fewshot.learners.optimization import evaluation
from fewshot.learners.optimization.attacks import FGSM
from fewshot.learners.optimization.reptile import in_turn, mini_batches
from fewshot.learners.optimization.second_moment import SecondMoment

WAY, SHOT, QUERIES, EPISODES, LR, STEPS, BATCH = 3, 3, 2, 3, 0.02, 4, 4
CLASSIFICATION = {"kind": "classification", "way": WAY}
Optimizer = Literal["sgd", "adam"]


# ---------------------------------------------------------------- the reference: torch.optim on a c


def places(support: Examples, passes: int) -> list[int]:
    """The random order of each pass, one after the other."""
    # a tensor
    order: list[int] = orders(support.inputs[None], passes)[0].tolist()  # type: ignore[index]
    return order


def trained(
    learner: Reptile,
    support: Examples,
    order: list[int],
    steps: int = STEPS,
    size: int | None = BATCH,
    adam: dict[str, Any] | None = None,
) -> nn.Sequential:
    """A copy of the network, trained on a support set by torch's own optimizer.

    `adam` is the optimizer's state before, where it is not empty, and becomes that after.
    """
    network = nn.Sequential(copy.deepcopy(learner.backbone), copy.deepcopy(learner.head))
    optimizer = (
        torch.optim.Adam(network.parameters(), LR, betas=(0.0, 0.999))
        if learner.inner_optimizer == "adam"
        else torch.optim.SGD(network.parameters(), LR)
    )
    if adam:
        optimizer.load_state_dict(copy.deepcopy(adam))
    measure: Any = F.cross_entropy if learner.task.kind == "classification" else F.mse_loss
    for step in range(steps):
        chosen = order[step * size : (step + 1) * size] if size else range(len(support.targets))
        index = torch.tensor(chosen)
        assert len(index) == (size or len(support.targets))
        optimizer.zero_grad()
        measure(network(support.inputs[index]), support.targets[index]).backward()  # type: ignore[index]
        optimizer.step()
    if adam is not None:
        adam.update(optimizer.state_dict())
    return network


def flat(values: Any) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def make(inner_optimizer: Optimizer, **kwargs: Any) -> Reptile:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "inner_lr": LR,
        "inner_steps": STEPS,
        "inner_batch": BATCH,
    } | kwargs
    learner = Reptile(
        Conv4(2, 16, width=4), task=CLASSIFICATION, inner_optimizer=inner_optimizer, **arguments
    ).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return learner


@pytest.fixture
def batch() -> Episode:
    torch.manual_seed(1)

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


def step(learner: Reptile, batch: Episode) -> tuple[Tensor, Tensor]:
    """Weights after one outer step of the class's own or given optimizer, and logged losses."""
    optimizer = learner.optimizer(learner.parameters())
    losses = []
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / len(batch.query.targets))
        losses.append(outcome.loss.detach())
    optimizer.step()
    return flat(learner.parameters()), torch.cat(losses)


def distance(one: Tensor, two: Tensor) -> float:
    return ((one - two).abs().max() / two.abs().max()).item()


# ---------------------------------------------------------------- the update


@pytest.mark.parametrize(
    "inner_batch", [BATCH, None, 2 * WAY * SHOT + 1], ids=["batch", "whole", "larger"]
)
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("inner_optimizer", ["sgd", "adam"])
def test_the_pseudo_gradient_is_the_mean_way_back_to_the_start(
    inner_optimizer: Optimizer, parallel: Parallel, inner_batch: int | None, batch: Episode
) -> None:
    learner = make(inner_optimizer, inner_batch=inner_batch, episode_parallel=parallel)
    start = flat(learner.parameters())
    ends, losses = [], []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        network = trained(learner, support, places(support, 99), size=inner_batch)
        ends.append(flat(network.parameters()))
        losses.append(F.cross_entropy(network(query.inputs), query.targets).detach())
    _, logged = step(learner, batch)
    gradient = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])
    assert distance(gradient, start - torch.stack(ends).mean(0)) < 1e-9
    assert distance(logged, torch.stack(losses)) < 1e-9


@pytest.mark.parametrize("episodes", [1, EPISODES])
@pytest.mark.parametrize("epsilon", [None, 0.25])
def test_sgd_makes_the_papers_update(epsilon: float | None, episodes: int, batch: Episode) -> None:
    kwargs = {} if epsilon is None else {"optimizer": lambda p: torch.optim.SGD(p, lr=epsilon)}
    learner = make("adam", **kwargs)
    start = flat(learner.parameters())
    some = map_tensors(lambda tensor: tensor[:episodes], batch)
    supports = [episode(some, i).support for i in range(episodes)]
    ends = torch.stack([flat(trained(learner, s, places(s, 9)).parameters()) for s in supports])
    expected = start + (epsilon or 1.0) * (ends - start).mean(0)  # one episode: the serial update
    assert distance(step(learner, some)[0] - start, expected - start) < 1e-9


def test_it_is_the_sum_of_the_gradients_along_the_way(batch: Episode) -> None:
    learner = make(
        "sgd", inner_batch=None, inner_steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=1.0)
    )
    support = episode(batch, 0).support
    loss = F.cross_entropy(learner.network(support.inputs), support.targets)
    expected = flat(torch.autograd.grad(loss, list(learner.parameters())))
    for outcome in learner.run(map_tensors(lambda tensor: tensor[:1], batch), training=True):
        torch.autograd.backward(outcome.loss.sum())
    gradient = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])
    assert distance(gradient, LR * expected) < 1e-9  # one step: joint training, as the paper says


def test_a_step_is_clipped(batch: Episode) -> None:
    whole, cut = (
        make("sgd", inner_steps=1, inner_batch=None, inner_gradient_clip=clip)
        for clip in (None, 1e-3)
    )
    one = map_tensors(lambda tensor: tensor[:1], batch)
    starts = [flat(learner.parameters()) for learner in (whole, cut)]
    moves = [
        step(learner, one)[0] - start for learner, start in zip((whole, cut), starts, strict=True)
    ]
    assert distance(moves[1] * moves[0].norm() / moves[1].norm(), moves[0]) < 1e-9
    assert moves[1].norm().item() == pytest.approx(LR * 1e-3, rel=1e-9)


def test_serial_training_with_epsilon_to_zero(tmp_path: Path) -> None:
    def make_data() -> SinusoidDataModule:
        return SinusoidDataModule(
            shot=5,
            train_shot=8,
            queries=4,
            meta_batch_size=1,
            train_episodes=3,
            val_episodes=1,
            test_episodes=1,
        )

    torch.manual_seed(0)
    learner = Reptile(
        MLP(1, (7, 5)), task=make_data().task, inner_lr=LR, inner_batch=None, inner_steps=STEPS,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
        lr_scheduler=lambda optimizer: LinearLR(optimizer, 1.0, 0.0, total_iters=3),
    )  # fmt: skip
    written_out = copy.deepcopy(learner).double()
    adam: dict[str, Any] = {}  # one optimizer for all tasks, as in the original code
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(learner, make_data())
    for k, meta_batch in enumerate(make_data().train_dataloader()):
        support = map_tensors(
            lambda tensor: tensor.double(), episode(meta_batch.stacked, 0).support
        )
        assert support.targets.shape == (8, 1)
        end = trained(written_out, support, [], size=None, adam=adam)
        with torch.no_grad():
            for theta, theta_prime in zip(written_out.parameters(), end.parameters(), strict=True):
                theta.add_(theta_prime - theta, alpha=0.5 * (1 - k / 3))
    assert k == 2
    assert distance(flat(learner.parameters()), flat(written_out.parameters())) < 1e-9
    assert learner.second_moment is not None
    assert learner.second_moment.steps == 3 * STEPS
    assert distance(flat(learner.second_moment.squares.values()), squares_of(adam)) < 1e-9
    support = Examples(
        torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    )
    x = torch.randn(3, 1, dtype=torch.float64)
    for _ in range(2):  # a test task leaves nothing to the next
        end = trained(learner, support, [], size=None, adam=dict(adam))
        assert distance(learner.predict(learner.adapt(support), x), end(x).detach()) < 1e-9


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_it_compiles(parallel: Parallel) -> None:
    half = Examples(torch.randn(2, 4, 1), torch.randn(2, 4, 1))
    steps = []
    for compiler in (Compiler("aot_eager"), None):
        torch.manual_seed(0)
        arguments: dict[str, Any] = {
            "inner_steps": 2,
            "inner_batch": 3,
            "episode_parallel": parallel,
        }
        learner = Reptile(MLP(1, (5,)), task={"kind": "regression"}, **arguments).double()
        learner.compiler = compiler
        double = map_tensors(lambda tensor: tensor.double(), Episode(half, half))
        # the second reads what the second moment has become, not what it was when it was compiled
        for _ in range(2):
            start = flat(learner.parameters())
            steps.append(step(learner, double)[0] - start)
            with_moment(learner)
    assert distance(*steps[::2]) < 1e-9
    assert distance(*steps[1::2]) < 1e-9
    assert distance(*steps[:2]) > 1e-3


# ---------------------------------------------------------------- Adam's second moment, from task t


def squares_of(adam: dict[str, Any]) -> Tensor:
    """The averages of squared gradients in an optimizer's state."""
    return flat(adam["state"][number]["exp_avg_sq"] for number in sorted(adam["state"]))


def with_moment(learner: Reptile) -> SecondMoment:
    """Give the learner a second moment, as if it had seen 7 inner steps."""
    moment = learner.second_moment
    assert moment is not None
    torch.manual_seed(3)
    for square in moment.squares.values():
        square.copy_(1e-3 * torch.rand_like(square))
    moment.steps.fill_(7)
    return moment


def adam_of(learner: Reptile, moment: SecondMoment) -> dict[str, Any]:
    """The state of torch's optimizer that has that second moment."""
    states = {
        number: {
            "step": moment.steps.float(),
            "exp_avg": torch.zeros_like(square),
            "exp_avg_sq": square.clone(),
        }
        for number, square in enumerate(moment.squares.values())
    }
    return torch.optim.Adam(learner.network.parameters(), LR, betas=(0.0, 0.999)).state_dict() | {
        "state": states
    }


def train_once(learner: Reptile, batch: Episode, folder: Path) -> None:
    """One meta-step of a trainer on `batch`."""
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    loader: Any = DataLoader([batch], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(learner, loader, loader)


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_a_meta_step_goes_on_with_the_second_moment(
    parallel: Parallel, chunk: int, batch: Episode, tmp_path: Path
) -> None:
    learner = make("adam", episode_parallel=parallel, episodes_per_chunk=chunk)
    moment = with_moment(learner)
    start, before, adam = (
        flat(learner.parameters()),
        flat(moment.squares.values()),
        adam_of(learner, moment),
    )
    ends, added = [], []
    for i in range(EPISODES):
        support, after = episode(batch, i).support, dict(adam)
        ends.append(flat(trained(learner, support, places(support, 9), adam=after).parameters()))
        # of the task's own gradients
        added.append((squares_of(after) - 0.999**STEPS * before) / (1 - 0.999**STEPS))
    train_once(learner, batch, tmp_path)
    assert distance(flat(learner.parameters()) - start, torch.stack(ends).mean(0) - start) < 1e-9
    # what is left of what was before, after so many steps one by one
    old = 0.999 ** (STEPS * EPISODES)
    expected = old * before + (1 - old) * torch.stack(added).mean(0)
    assert distance(flat(moment.squares.values()), expected) < 1e-9
    assert moment.steps == 7 + STEPS * EPISODES


def test_a_skipped_meta_step_leaves_the_second_moment_alone(batch: Episode, tmp_path: Path) -> None:
    learner = make("adam", nonfinite="skip")
    moment = with_moment(learner)
    before = flat(moment.squares.values())
    assert isinstance(batch.support.inputs, Tensor)
    batch.support.inputs[1] = torch.nan
    train_once(learner, batch, tmp_path)
    assert learner.guard.skipped == 1
    assert torch.equal(flat(moment.squares.values()), before)
    assert moment.steps == 7


def test_stochastic_gradient_descent_has_none(batch: Episode, tmp_path: Path) -> None:
    learner = make("sgd")
    train_once(learner, batch, tmp_path)
    assert learner.second_moment is None
    assert not [name for name in learner.state_dict() if "second" in name]


# ---------------------------------------------------------------- mini-batches


def test_training_passes_through_the_support_again_and_again_in_random_order(
    batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, passes = WAY * SHOT, 3
    learner = make("sgd", inner_steps=passes, inner_batch=size, episode_parallel="loop")
    seen: list[Tensor] = []

    def watched(weights: Weights, examples: Examples) -> Weights:
        assert isinstance(examples.inputs, Tensor)
        seen.append(examples.inputs)
        return weights

    monkeypatch.setattr(learner, "_gradient", watched)
    list(learner.run(batch, training=True))
    assert len(seen) == EPISODES * passes
    orders = set()
    for number, images in enumerate(seen):
        whole = batch.support.inputs[number // passes]  # type: ignore[index]
        equal = (images[:, None] == whole).flatten(2).all(-1)
        assert torch.equal(equal.sum(0), torch.ones(size, dtype=torch.long)), (
            "each example once a pass"
        )
        orders.add(tuple(equal.long().argmax(1).tolist()))
    assert len(orders) == EPISODES * passes


def test_evaluation_takes_the_classes_in_turn() -> None:
    assert in_turn(torch.tensor([0, 0, 1, 1, 2, 2]), 2).tolist() == [[0, 2, 4, 1, 3, 5]] * 2
    assert in_turn(torch.tensor([2, 0, 0, 1, 2, 0]), 1).tolist() == [[0, 1, 3, 2, 4, 5]]
    tokens = {"tokens": torch.arange(6)[:, None]}  # inputs may be a dict
    batches = list(mini_batches(Examples(tokens, torch.tensor([0, 0, 1, 1, 2, 2])), 3, 3, in_turn))
    assert [batch.targets.tolist() for batch in batches] == [[0, 1, 2]] * 3
    inputs = [batch.inputs["tokens"].flatten().tolist() for batch in batches]  # type: ignore[index]
    assert inputs == [[0, 2, 4], [1, 3, 5], [0, 2, 4]]


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("policy", ["transductive", "inductive", "among"])
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("inner_optimizer", ["sgd", "adam"])
def test_evaluation_is_adapt_and_predict_of_each_episode(
    inner_optimizer: Optimizer,
    parallel: Parallel,
    policy: str,
    batch: Episode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make(
        inner_optimizer,
        batchnorm="inductive" if policy == "among" else policy,
        query_among_support=policy == "among",
        eval_inner_steps=5,
        eval_curve="all",
        eval_inner_batch=WAY,
        episode_parallel=parallel,
    )
    monkeypatch.setattr(evaluation, "AT_ONCE", 4 * (WAY * SHOT + 1))  # queries in two parts
    if inner_optimizer == "adam":
        with_moment(learner)
    outcome = learner.evaluate(batch)
    torch.manual_seed(7)
    assert torch.equal(learner.evaluate(batch).outputs, outcome.outputs)  # no chance
    assert {f"accuracy_step{k}" for k in range(6)} < set(outcome.metrics)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        outputs = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], outputs, rtol=1e-10, atol=1e-10)
        if policy == "inductive":
            continue
        order = [shot + SHOT * label for shot in range(SHOT) for label in range(WAY)]
        adam = adam_of(learner, learner.second_moment) if learner.second_moment else None
        network = trained(learner, support, order * 2, steps=5, size=WAY, adam=adam)
        assert isinstance(support.inputs, Tensor)
        assert isinstance(query.inputs, Tensor)
        expected = network(query.inputs)
        if policy == "among":  # the authors': each query is the last of a batch, after the support
            expected = torch.cat(
                [network(torch.cat([support.inputs, one[None]]))[-1:] for one in query.inputs]
            )
        assert distance(outputs, expected.detach()) < 1e-9


@pytest.mark.parametrize("adapt", ["all", "head"])
def test_a_query_among_the_support_sees_no_other(adapt: Any, batch: Episode) -> None:
    learner = make("sgd", batchnorm="inductive", query_among_support=True, adapt=adapt,
                   attack=FGSM(0.1))  # fmt: skip
    support, query = episode(batch, 0)
    assert isinstance(query.inputs, Tensor)
    adapted = learner.adapt(support)
    whole = learner.predict(adapted, query.inputs)
    torch.testing.assert_close(whole[2:3], learner.predict(adapted, query.inputs[2:3]))
    plain = make("sgd", batchnorm="inductive", adapt=adapt)
    assert distance(whole, plain.predict(plain.adapt(support), query.inputs)) > 1e-4
    outcome = learner.evaluate(batch)
    torch.testing.assert_close(outcome.outputs[0], whole)
    # the attack goes through the same normalisation
    attacked = learner.attack(  # type: ignore[misc]
        lambda x: F.cross_entropy(learner.predict(adapted, x), query.targets), query.inputs, seed=0
    )
    loss = F.cross_entropy(learner.predict(adapted, attacked), query.targets)
    torch.testing.assert_close(outcome.metrics["loss_adversarial"][0], loss)
    with pytest.raises(FewshotError, match=r"a query of shape \(2, 8, 8\) cannot be normalised"):
        learner.predict(adapted, query.inputs[..., :8, :8])


def test_regression_is_evaluated_on_the_points_as_they_come() -> None:
    torch.manual_seed(0)
    learner = Reptile(
        MLP(1, (5,)), task={"kind": "regression"}, inner_lr=LR, inner_batch=2
    ).double()
    support = Examples(
        torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    )
    network = trained(learner, support, list(range(4)) * 3, steps=5, size=2)
    x = torch.randn(3, 1, dtype=torch.float64)
    assert distance(learner.predict(learner.adapt(support), x), network(x).detach()) < 1e-9


def test_a_checkpoint_rebuilds_its_learner(tmp_path: Path, batch: Episode) -> None:
    learner = make("adam", eval_inner_batch=5, eval_inner_steps=3).float()
    moment = with_moment(learner)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Reptile.load_from_checkpoint(tmp_path / "a.ckpt")
    small = map_tensors(
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, batch
    )
    assert torch.equal(
        loaded.eval().evaluate(small).outputs, learner.eval().evaluate(small).outputs
    )
    assert loaded.eval_inner_batch == 5
    assert loaded.second_moment is not None
    assert loaded.second_moment.steps == 7
    assert torch.equal(flat(loaded.second_moment.squares.values()), flat(moment.squares.values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"query_among_support": True},
            "query_among_support says how inductive evaluation normalises; set batchnorm: ind",
        ),
        ({"inner_batch": 0}, r"inner_batch is 0; set inner_batch >= 1"),
        ({"eval_inner_batch": 0}, r"eval_inner_batch is 0; set eval_inner_batch >= 1"),
        ({"inner_optimizer": "rmsprop"}, r"inner_optimizer is 'rmsprop'; give sgd or adam"),
    ],
)
def test_bad_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        Reptile(MLP(1), task=CLASSIFICATION, **arguments)
