"""The optimization-based family acts: the same returns however it is run, exact meta-gradients."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from fewshot import (
    CAVIA,
    FOMAML,
    MAML,
    MLP,
    TRPO,
    FewshotError,
    MetaSGD,
    MultiTask,
    NavigationDataModule,
    ProMP,
    Reptile,
)
from fewshot.datamodules import BanditDataModule, ControlDataModule
from fewshot.episodes.types import Episode, map_tensors
from fewshot.learners import OptimizationLearner
from fewshot.learners.optimization.trpo import conjugate_gradients
from fewshot.tasks.control import Steps

LEARNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "MAML": (MAML, {"inner_lr": 0.1, "inner_steps": 2}),
    "FOMAML": (FOMAML, {"inner_lr": 0.1}),
    "MetaSGD": (MetaSGD, {}),
    "CAVIA": (CAVIA, {"inner_lr": 0.1}),
    "MultiTask": (MultiTask, {"inner_lr": 0.1}),
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
    fixed = learner.held(episodes)
    slopes = gradients(learner, fixed)

    def value(shift: float, direction: dict[str, Tensor]) -> float:
        moved, _ = made("MAML", "loop", loss, bandit)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p.add_(shift * direction[name])
        return sum(o.loss.sum().item() for o in moved.run(fixed, training=True))

    torch.manual_seed(1)
    direction = {name: torch.randn_like(p) for name, p in learner.named_parameters()}
    numeric = (value(1e-5, direction) - value(-1e-5, direction)) / 2e-5
    exact = sum(float((slopes[name] * direction[name]).sum()) for name in slopes)
    assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-7)
    # what is played anew has the same loss and the same gradient where it was played
    fresh, _ = made("MAML", "loop", loss, bandit)
    for name, slope in gradients(fresh, episodes).items():
        torch.testing.assert_close(slope, slopes[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_rewards_that_are_not_finite_name_task_and_step(how: str) -> None:
    learner, episodes = made("MAML", how)
    assert isinstance(episodes.query.inputs, Tensor)
    episodes.query.inputs[1, 2] = float("inf")
    with pytest.raises(
        FewshotError,
        match=r"reward of step 0 in the task of facts \[inf, inf\] is -inf; have navigation give",
    ):
        learner.held(episodes)


def test_each_inner_step_plays_anew() -> None:
    learner, episodes = made("MAML")
    support = learner.held(episodes).support
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


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("bandit", [False, True])
def test_trpos_products_are_those_with_autograds_hessian(bandit: bool) -> None:
    learner, episodes = made("MAML", bandit=bandit, inner_steps=1)
    fixed, parameters = [learner.held(episodes)], list(learner.parameters())
    product = TRPO(damping=0.0).kl_product(learner, fixed, parameters)
    with torch.no_grad():
        kl = learner.surrogate(fixed)[1]
    assert kl.item() == pytest.approx(0, abs=1e-12)
    slope = flat(torch.autograd.grad(learner.surrogate(fixed)[1], parameters, create_graph=True))
    hessian = torch.stack(
        [flat(torch.autograd.grad(s, parameters, retain_graph=True)) for s in slope]
    )
    assert hessian.abs().max() > 1e-4
    torch.manual_seed(0)
    v = torch.randn(len(slope), dtype=torch.float64)
    torch.testing.assert_close(product(v), hessian @ v, rtol=1e-8, atol=1e-12)
    target = hessian @ v + 0.1 * v
    solved = conjugate_gradients(lambda x: hessian @ x + 0.1 * x, target, 200)
    torch.testing.assert_close(solved, v, rtol=1e-5, atol=1e-6)


def test_trpos_step_is_that_of_the_trust_region() -> None:
    learner, episodes = made("MAML", inner_steps=1)
    fixed, outer = [learner.held(episodes)], TRPO(cg_iterations=100)
    before = learner.surrogate(fixed)[0]
    before.backward()  # type: ignore[no-untyped-call]
    parameters = list(learner.parameters())
    gradient = flat([p.grad for p in parameters])
    start = flat([p.detach().clone() for p in parameters])
    outer.prepare(learner, fixed)
    assert torch.equal(flat([p.detach() for p in parameters]), start), "SGD takes the step"
    step = flat([p.grad for p in parameters])
    product = outer.kl_product(learner, fixed, parameters)
    assert 0.5 * (step @ product(step)).item() <= outer.max_kl * (1 + 1e-3)
    cosine = product(step) @ gradient / product(step).norm() / gradient.norm()
    assert cosine.item() == pytest.approx(1, abs=1e-3)  # H step = g but for a factor
    with torch.no_grad():
        for p in parameters:
            p.sub_(p.grad)  # type: ignore[arg-type]
        loss, kl = learner.surrogate(fixed)
    assert loss < before
    assert 1e-4 < kl <= outer.max_kl


def trained(outer: Any, optimizer: Any, how: str = "vmap") -> tuple[Any, OptimizationLearner]:
    data = NavigationDataModule(
        horizon=6, shot=4, queries=4, meta_batch_size=3, train_episodes=6, test_episodes=3
    )
    torch.manual_seed(0)
    learner = MAML(
        MLP(2, (5,)), task=data.task, inner_lr=0.1, outer=outer, optimizer=optimizer, episode_parallel=how  # type: ignore[arg-type]
    )  # fmt: skip
    trainer = L.Trainer(
        accelerator="cpu", precision="64-true", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    return trainer, learner


def sgd(lr: float) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


@pytest.mark.parametrize(
    ("outer", "rate"), [(TRPO(damping=0.01, cg_iterations=5), 1.0), (ProMP(epochs=3), 0.1)]
)
def test_outer_steps_count_once_and_are_the_same_in_a_loop(outer: Any, rate: float) -> None:
    trainer, learner = trained(outer, sgd(rate))
    assert trainer.global_step == 2
    other = trained(outer, sgd(rate), "loop")[1]
    start = MAML(MLP(2, (5,)), task=learner.init_args["task"])
    for (name, p), q in zip(learner.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9, msg=name)
    assert any(
        not torch.allclose(p, q.double())
        for p, q in zip(learner.parameters(), start.parameters(), strict=True)
    )


def test_one_policy_for_all_is_trained_as_it_is_and_tuned_at_test() -> None:
    learner, episodes = made("MultiTask")
    task: Any = learner.task
    slopes = gradients(learner, episodes)
    fixed = learner.held(episodes)
    learner.zero_grad()
    torch.stack(
        [
            task.loss(learner.network(inputs), targets)
            for inputs, targets in zip(*fixed.query[:2], strict=True)
        ]
    ).sum().backward()  # type: ignore[no-untyped-call]
    for name, p in learner.named_parameters():
        torch.testing.assert_close(p.grad, slopes[name], rtol=0, atol=1e-10)
    assert {"return_step0", "return_step1"} <= learner.evaluate(episodes).metrics.keys()
    assert learner.surrogate([fixed])[1].abs() < 1e-12


def test_promp_clips_what_has_gone_too_far() -> None:
    learner, episodes = made("MAML", bandit=True)
    task: Any = learner.task
    query = learner.held(episodes).query
    steps = Steps.of(query.targets[0], task)
    steps = steps._replace(advantages=torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=torch.float64))
    targets = steps.packed()
    outputs = steps.outputs + torch.tensor([3.0, 0.0, -3.0], dtype=torch.float64)
    ratio, gains = task.ratio(outputs, steps), steps.advantages
    expected = -torch.stack(
        [min(r * a, r.clamp(0.7, 1.3) * a) for r, a in zip(ratio, gains, strict=True)]
    ).mean()
    torch.testing.assert_close(ProMP(clip=0.3).loss(task)(outputs, targets), expected)
    assert expected != task.loss(outputs, targets)


def test_an_outer_step_refuses_what_it_cannot_use() -> None:
    with pytest.raises(
        FewshotError, match=r"set optimizer: \{class_path: SGD, init_args: \{lr: 1.0\}\}"
    ):
        trained(TRPO(), torch.optim.Adam)
    with pytest.raises(FewshotError, match="outer is ProMP, which is for tasks to act in"):
        MAML(MLP(1), task={"kind": "regression"}, outer=ProMP())
