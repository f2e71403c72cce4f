"""MAML against plain autograd and finite differences, in float64.

Evaluation, checkpoints, use without a Trainer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples, MetaBatch, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import MAML, PrototypicalNetwork
from fewshot.learners.base import BatchNormPolicy

WAY, SHOT, QUERIES, EPISODES = 3, 2, 2, 3
LR, STEPS = 0.3, 2
Forward = Callable[[dict[str, Tensor], Tensor], Tensor]


# ---------------------------------------------------------------- the reference: no nn.Module, no t


def normalised(x: Tensor, axes: list[int], weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def conv4(w: dict[str, Tensor], x: Tensor) -> Tensor:
    for i in range(4):
        x = F.conv2d(x, w[f"backbone.blocks.{i}.0.weight"], padding=1)
        scale, shift = (
            w[f"backbone.blocks.{i}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        x = F.max_pool2d(normalised(x, [0, 2, 3], scale, shift).clamp(min=0), 2)
    return x.flatten(1) @ w["head.weight"].T + w["head.bias"]


def mlp(w: dict[str, Tensor], x: Tensor) -> Tensor:
    x = x.flatten(1)
    for i in (0, 2):
        x = (x @ w[f"backbone.layers.{i}.weight"].T + w[f"backbone.layers.{i}.bias"]).clamp(min=0)
    return x @ w["head.weight"].T + w["head.bias"]


def mlp_norm(w: dict[str, Tensor], x: Tensor) -> Tensor:
    x = x.flatten(1)
    for i in (0, 3):
        x = x @ w[f"backbone.layers.{i}.weight"].T + w[f"backbone.layers.{i}.bias"]
        scale, shift = (w[f"backbone.layers.{i + 1}.{name}"] for name in ("weight", "bias"))
        x = normalised(x, [1], scale, shift).clamp(min=0)
    return x @ w["head.weight"].T + w["head.bias"]


def reference(
    learner: MAML, forward: Forward, batch: Episode, first_order: bool
) -> tuple[Tensor, Tensor]:
    """The meta-loss and the meta-gradient by `torch.autograd.grad` through unrolled steps."""
    start = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        w = dict(start)
        for _ in range(STEPS):
            loss = F.cross_entropy(forward(w, batch.support.inputs[i]), batch.support.targets[i])  # type: ignore[index]
            gradients = torch.autograd.grad(loss, list(w.values()), create_graph=True)
            if first_order:
                gradients = tuple(g.detach() for g in gradients)
            w = {
                name: value - LR * g for (name, value), g in zip(w.items(), gradients, strict=True)
            }
        total = total + F.cross_entropy(forward(w, batch.query.inputs[i]), batch.query.targets[i])  # type: ignore[index]
    gradients = torch.autograd.grad(total / EPISODES, list(start.values()))
    return total.detach() / EPISODES, torch.cat([g.flatten() for g in gradients])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Forward]] = {
    "conv4": (lambda: Conv4(2, 16, width=4), conv4),
    "mlp": (lambda: MLP(2 * 16 * 16, (6, 5)), mlp),
    "mlp_norm": (lambda: MLP(2 * 16 * 16, (6, 5), norm="layer"), mlp_norm),
}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    """Random images (2, 16, 16) with labels."""

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


def maml(network: nn.Module, **kwargs: Any) -> MAML:
    learner = MAML(
        network,
        task={"kind": "classification", "way": WAY},
        inner_lr=LR,
        inner_steps=STEPS,
        **kwargs,
    ).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name or ".4." in name:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return learner


def loss_and_gradient(learner: MAML, batch: Episode) -> tuple[Tensor, Tensor]:
    """The mean training loss and its gradient, chunk by chunk as a training step takes it."""
    learner.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
        total += outcome.loss.detach().sum() / EPISODES
    gradients = [p.grad for p in learner.parameters()]
    return total, torch.cat([g.flatten() for g in gradients if g is not None])


def distance(one: Tensor, two: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((one - two).abs().max() / two.abs().max()).item()


# ---------------------------------------------------------------- the meta-gradient


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_meta_gradient_is_that_of_plain_autograd(
    name: str, first_order: bool, batch: Episode
) -> None:
    make, forward = NETWORKS[name]
    learner = maml(make(), first_order=first_order, episode_parallel="loop")
    loss, gradient = loss_and_gradient(learner, batch)
    expected_loss, expected = reference(learner, forward, batch, first_order)
    assert distance(loss, expected_loss) < 1e-12
    assert distance(gradient, expected) < 1e-9
    other = reference(learner, forward, batch, not first_order)[1]
    assert distance(other, expected) > 1e-3  # the two orders differ, so that the test can tell


@pytest.mark.parametrize("name", NETWORKS)
def test_loop_vmap_and_chunks_agree(name: str, batch: Episode) -> None:
    learner = maml(NETWORKS[name][0](), episode_parallel="loop")
    loss, gradient = loss_and_gradient(learner, batch)
    ways: list[tuple[Parallel, int | None]] = [
        ("loop", 2),
        ("vmap", None),
        ("vmap", 2),
        ("vmap", 1),
        ("auto", None),
    ]
    for parallel, chunk in ways:
        learner.episode_parallel, learner.episodes_per_chunk = parallel, chunk
        other_loss, other = loss_and_gradient(learner, batch)
        assert distance(other_loss, loss) < 1e-12
        assert distance(other, gradient) < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_the_meta_gradient_is_that_of_finite_differences(name: str, batch: Episode) -> None:
    learner = maml(NETWORKS[name][0]())
    _, gradient = loss_and_gradient(learner, batch)
    start = [p.detach().clone() for p in learner.parameters()]

    def loss(direction: list[Tensor], step: float) -> Tensor:
        with torch.no_grad():
            for parameter, value, change in zip(
                learner.parameters(), start, direction, strict=True
            ):
                parameter.copy_(value + step * change)
            return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    step = 1e-6
    for _ in range(3):
        random = [torch.randn_like(value) for value in start]
        length = torch.cat([d.flatten() for d in random]).norm()
        direction = [d / length for d in random]
        slope = (loss(direction, step) - loss(direction, -step)) / (2 * step)
        expected = gradient @ torch.cat([d.flatten() for d in direction])
        assert slope.item() == pytest.approx(expected.item(), rel=1e-5)


# ---------------------------------------------------------------- evaluation


def test_no_running_averages_are_kept() -> None:
    # averages over weights that change within an episode mean nothing; `EpisodeNorm` would leave
    # them at 0 and 1
    learner = maml(Conv4(2, 16, width=4))
    assert not list(learner.backbone.buffers())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in learner.backbone.modules()) == 4


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_training_and_evaluation_leave_the_weights_alone(
    parallel: Parallel, batch: Episode
) -> None:
    learner = maml(Conv4(2, 16, width=4), episode_parallel=parallel)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    policies: tuple[BatchNormPolicy, ...] = ("inductive", "transductive")
    for policy in policies:
        learner.batchnorm = policy
        loss_and_gradient(learner, batch)
        learner.evaluate(batch)
        learner.predict(learner.adapt(episode(batch, 0).support), episode(batch, 0).query.inputs)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_a_query_sees_the_others_in_transductive_evaluation_alone(
    parallel: Parallel, batch: Episode
) -> None:
    learner = maml(Conv4(2, 16, width=4), batchnorm="inductive", episode_parallel=parallel)
    inputs = batch.query.inputs
    assert isinstance(inputs, Tensor)
    changed = inputs.clone()
    changed[:, 1:] = torch.rand_like(changed[:, 1:])
    other = batch._replace(query=batch.query._replace(inputs=changed))
    one, two = (learner.evaluate(b).outputs for b in (batch, other))
    assert torch.equal(one[:, 0], two[:, 0])
    assert not torch.equal(one[:, 1:], two[:, 1:])
    learner.batchnorm = "transductive"
    one, two = (learner.evaluate(b).outputs for b in (batch, other))
    assert distance(one[:, 0], two[:, 0]) > 1e-3


def test_inductive_predictions_do_not_depend_on_the_number_of_queries(batch: Episode) -> None:
    learner = maml(Conv4(2, 16, width=4), batchnorm="inductive")
    support, query = episode(batch, 0)
    assert isinstance(query.inputs, Tensor)
    adapted = learner.adapt(support)
    together = learner.predict(adapted, query.inputs)
    alone = torch.cat(
        [learner.predict(adapted, query.inputs[i : i + 1]) for i in range(len(query.inputs))]
    )
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", ["inductive", "transductive"])
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_evaluation_is_adapt_and_predict_of_each_episode(
    policy: Any, parallel: Parallel, batch: Episode
) -> None:
    learner = maml(
        Conv4(2, 16, width=4), batchnorm=policy, episode_parallel=parallel, eval_inner_steps=3
    )
    with torch.inference_mode():
        outcome = learner.evaluate(batch)
    assert not outcome.outputs.requires_grad
    for i in range(EPISODES):
        support, query = episode(batch, i)
        outputs = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], outputs, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            outcome.loss[i], F.cross_entropy(outputs, query.targets), rtol=1e-10, atol=1e-10
        )


def test_the_adaptation_curve_begins_before_the_first_step_and_ends_at_the_result(
    batch: Episode,
) -> None:
    learner = maml(MLP(2 * 16 * 16, (6, 5)), eval_inner_steps=3, eval_curve="all")
    outcome = learner.evaluate(batch)
    assert set(outcome.metrics) == {"accuracy"} | {
        f"{m}_step{i}" for m in ("loss", "accuracy") for i in range(4)
    }
    for i in range(EPISODES):
        support, query = episode(batch, i)
        w = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
        for step in range(4):
            loss = F.cross_entropy(mlp(w, query.inputs), query.targets)  # type: ignore[arg-type]
            assert outcome.metrics[f"loss_step{step}"][i].item() == pytest.approx(
                loss.item(), rel=1e-10
            )
            support_loss = F.cross_entropy(mlp(w, support.inputs), support.targets)  # type: ignore[arg-type]
            gradients = torch.autograd.grad(support_loss, list(w.values()))
            w = {
                n: (v - LR * g).detach().requires_grad_()
                for (n, v), g in zip(w.items(), gradients, strict=True)
            }
    assert torch.equal(outcome.metrics["loss_step3"], outcome.loss)
    assert torch.equal(outcome.metrics["accuracy_step3"], outcome.metrics["accuracy"])


@pytest.mark.parametrize("policy", ["inductive", "transductive"])
@pytest.mark.parametrize(
    ("curve", "steps"), [("none", ()), ("ends", (0, 3)), ("all", (0, 1, 2, 3))]
)
def test_the_queries_are_read_at_the_steps_that_are_reported_alone(
    curve: Any, steps: Sequence[int], policy: Any, batch: Episode
) -> None:
    learner = maml(
        Conv4(2, 16, width=4),
        batchnorm=policy,
        episode_parallel="loop",
        eval_inner_steps=3,
        eval_curve="all",
    )
    batch = batch._replace(query=map_tensors(lambda tensor: tensor[:, 1:], batch.query))
    whole = learner.evaluate(batch)
    learner.eval_curve = curve
    sizes: list[int] = []
    learner.backbone.register_forward_hook(lambda *arguments: sizes.append(len(arguments[2])))
    outcome = learner.evaluate(batch)
    assert sizes.count(WAY * QUERIES - 1) == EPISODES * max(1, len(steps))
    assert set(outcome.metrics) == {"accuracy"} | {
        f"{m}_step{i}" for m in ("loss", "accuracy") for i in steps
    }
    for name, value in outcome.metrics.items():
        assert torch.equal(value, whole.metrics[name]), name
    assert torch.equal(outcome.outputs, whole.outputs)
    assert torch.equal(outcome.loss, whole.loss)


def test_the_inner_step_that_diverges_is_named_without_a_curve_too(batch: Episode) -> None:
    learner = maml(MLP(2 * 16 * 16, (6, 5)), eval_inner_steps=3)
    learner.inner_lr = 1e306
    message = learner._diverged(7, MetaBatch([batch]))
    assert "meta-step 7" in message
    assert "the loss of episode 0 of the meta-batch diverges after inner step" in message
    assert learner.eval_curve == "none"


# ---------------------------------------------------------------- use without a Trainer, checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[MAML, Path]:
    """A learner after two steps on sinusoids, and its checkpoint."""
    folder = tmp_path_factory.mktemp("maml")
    data = SinusoidDataModule(
        shot=5, queries=4, meta_batch_size=2, train_episodes=4, val_episodes=2, test_episodes=2
    )
    learner = MAML(
        MLP(1, (7, 5), norm="batch"),
        task=data.task,
        inner_steps=2,
        first_order=True,
        batchnorm="inductive",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return learner, folder / "last.ckpt"


def test_a_checkpoint_needs_no_arguments_and_holds_plain_values(
    checkpoint: tuple[MAML, Path],
) -> None:
    learner, path = checkpoint
    held = torch.load(path, weights_only=True)
    assert held["fewshot"]["learner"] == "MAML"
    assert held["hyper_parameters"]["backbone"]["class_path"] == "fewshot.MLP"
    loaded = MAML.load_from_checkpoint(path)
    assert (loaded.inner_steps, loaded.eval_inner_steps) == (2, 2)
    assert (loaded.first_order, loaded.batchnorm) == (True, "inductive")
    assert loaded.task == learner.task
    assert list(loaded.state_dict()) == list(learner.state_dict())
    pairs = zip(loaded.state_dict().values(), learner.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert MAML.load_from_checkpoint(path, eval_inner_steps=7).eval_inner_steps == 7


@pytest.mark.parametrize("inference_mode", [False, True])
def test_it_adapts_and_predicts_without_a_trainer(
    checkpoint: tuple[MAML, Path], inference_mode: bool
) -> None:
    learner, path = checkpoint
    loaded = MAML.load_from_checkpoint(path)
    with torch.inference_mode(inference_mode):
        x = torch.linspace(-5, 5, 10)[:, None]
        outputs = loaded.predict(loaded.adapt(Examples(x, x.sin())), x[:3] * 1.0)
    assert outputs.shape == (3, 1)
    x = torch.linspace(-5, 5, 10)[None, :, None]
    meta_batch = Episode(Examples(x, x.sin()), Examples(x[:, :3], x[:, :3].sin()))
    torch.testing.assert_close(outputs, learner.evaluate(meta_batch).outputs[0])


def test_other_checkpoints_are_refused(checkpoint: tuple[MAML, Path], tmp_path: Path) -> None:
    _, path = checkpoint
    with pytest.raises(
        FewshotError, match=r"the checkpoint holds a MAML, not a PrototypicalNetwork; load it with"
    ):
        PrototypicalNetwork.load_from_checkpoint(path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(
        FewshotError, match=r"not written by fewshot; train a MAML with `fewshot fit` first"
    ):
        MAML.load_from_checkpoint(tmp_path / "foreign.ckpt")


# ---------------------------------------------------------------- wrong input


class NoFeatures(nn.Module):
    """States no out_features."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner_steps": 0}, "inner_steps is 0; set inner_steps >= 1"),
        ({"eval_inner_steps": 0}, "eval_inner_steps is 0; set eval_inner_steps >= 1"),
        ({"episodes_per_chunk": 0}, "episodes_per_chunk is 0; set episodes_per_chunk >= 1"),
        (
            {"task": {"kind": "classification", "way": 5, "train_way": 20}},
            "train_way is 20 and way is 5; set",
        ),
        (
            {"backbone": NoFeatures()},
            "backbone NoFeatures has no integer attribute out_features; set it",
        ),
    ],
)
def test_bad_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"backbone": MLP(1), "task": {"kind": "classification", "way": 5}}
    with pytest.raises(FewshotError, match=message):
        MAML(**(good | arguments))
