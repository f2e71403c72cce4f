"""Compiled code follows whatever it depends on, and is compiled anew for nothing else.

Everything is compared with a twin that is not compiled, in float64.
"""

import copy
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

import fewshot.learners
from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.compiling import dependencies
from fewshot.engine.compiling.dependencies import LARGEST, Dependencies
from fewshot.episodes.types import Episode, Examples
from fewshot.hyperparameters import parameter_names
from fewshot.learners import (
    ADML,
    ANIL,
    BOIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MMAML,
    MRMAML,
    TAML,
    MAMLPlusPlus,
    MetaSGD,
    MultiTask,
    ProtoMAML,
    Reptile,
)
from fewshot.learners.optimization.attacks import FGSM, PGD
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.tasks import Classification, Regression

Change = Callable[[Any], object]


class Body(nn.Module):
    """Linear, normalised, dropped out, scaled by a buffer."""

    out_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 5), nn.LayerNorm(5), nn.Dropout(0.0), nn.Softplus(), nn.Linear(5, 3)
        )
        self.register_buffer("scale", torch.tensor(1.5))
        self.slope = 1.0
        self.activations = [torch.tanh]

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(inputs) * self.scale * self.slope
        for activation in self.activations:
            features = activation(features)
        self.last = features  # as networks keep what is to be looked at
        return features


def batch() -> Episode:
    generator = torch.Generator().manual_seed(0)

    def examples(n: int) -> Examples:
        inputs = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
        return Examples(inputs, torch.arange(n).remainder(3).expand(2, -1))

    return Episode(examples(6), examples(9))


def make(learner: type[OptimizationLearner], compile: bool, **arguments: Any) -> Any:
    torch.manual_seed(0)
    options = {"task": {"kind": "classification", "way": 3}, "episode_parallel": "loop"}
    made = learner(Body(), compile=compile, **{**options, **EXTRA.get(learner, {}), **arguments})
    if isinstance(made, MAMLPlusPlus):
        made.set_progress(0.0)
    return made.double()


def step(learner: OptimizationLearner) -> Tensor:
    """The losses of a meta-batch and all gradients, NaN for a parameter that has none."""
    learner.zero_grad()
    losses = []
    for outcome in learner.run(batch(), training=True):
        torch.autograd.backward(outcome.loss.sum())
        losses.append(outcome.loss.detach())
    gradients = [
        torch.full_like(p, torch.nan) if p.grad is None else p.grad for p in learner.parameters()
    ]
    return torch.cat([*losses, *(gradient.flatten() for gradient in gradients)])


def assert_same(compiled: Tensor, plain: Tensor, what: object) -> None:
    torch.testing.assert_close(
        compiled, plain, rtol=1e-9, atol=1e-12, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


def differ(one: Tensor, other: Tensor) -> bool:
    return one.shape != other.shape or not torch.allclose(one, other, 1e-6, 1e-9, equal_nan=True)


# ---------------------------------------------------------------- every hyperparameter of ours


EXTRA: dict[type[OptimizationLearner], dict[str, Any]] = {
    IMAML: {"inner_steps": 1, "cg_steps": 1},
    Reptile: {"inner_steps": 2, "inner_batch": 2},
    MAMLPlusPlus: {"inner_steps": 3},
    ADML: {"attack": FGSM(low=-9.0, high=9.0)},
}
FAMILY: dict[str, Change] = {
    "inner_gradient_clip": lambda learner: setattr(learner, "inner_gradient_clip", 0.05),
    "inner_steps": lambda learner: setattr(learner, "inner_steps", 1 + learner.inner_steps),
    "adapt": lambda learner: setattr(learner, "adapted_names", learner.adapted_names[:-1]),
    "task": lambda learner: setattr(learner, "task", Halved(way=3)),
    "head": lambda learner: list(map(triple, (learner, learner.network))),
    "backbone": lambda learner: setattr(learner.backbone, "slope", 0.5),
}


class Tripled(nn.Linear):
    """A linear layer whose outputs are three times as large."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(1, 1)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)


def triple(owner: Any) -> None:
    owner.head = Tripled(owner.head)


def sets(name: str, value: Any) -> dict[str, Change]:
    return {name: lambda learner: setattr(learner, name, value)}


OWN: dict[type[OptimizationLearner], dict[str, Change]] = {
    MAML: sets("inner_lr", 0.3) | sets("first_order", True),
    FOMAML: sets("inner_lr", 0.3) | sets("first_order", False),
    ANIL: sets("inner_lr", 0.3) | sets("first_order", True),
    BOIL: sets("inner_lr", 0.3) | sets("first_order", True),
    MetaSGD: {
        "initial_rates": lambda learner: setattr(
            learner, "rates", copy.deepcopy(learner.rates).requires_grad_(False)
        )
    },
    MAMLPlusPlus: {
        "inner_steps": lambda learner: setattr(learner, "inner_steps", 2),  # it has rates of 3
        "multi_step_share": lambda learner: learner.set_progress(0.3),
        "first_order_share": lambda learner: learner.set_progress(0.9),
        "learned_rates": lambda learner: setattr(learner, "rates", nn.ParameterDict()),
        "inner_lr": lambda learner: setattr(learner, "inner_lr", 0.3),
    },
    CAVIA: sets("inner_lr", 0.3)
    | sets("first_order", True)
    | {
        "num_context": lambda learner: setattr(
            learner.context, "phi", torch.ones_like(learner.context.phi)
        )
    },
    ADML: sets("inner_lr", 0.3)
    | sets("first_order", True)
    | {"epsilon": lambda learner: setattr(learner.attack, "epsilon", 0.02)}
    | sets("attack", PGD(random_start=False, low=-9.0, high=9.0)),
    ProtoMAML: sets("inner_lr", 0.3) | sets("first_order", True),
    MRMAML: sets("first_order", True) | sets("beta", 1.0),
    MultiTask: {},
    TAML: sets("inner_lr", 0.3) | sets("first_order", True) | sets("entropy", 0.3),
    IMAML: sets("inner_lr", 0.3)
    | sets("proximal", 1.0)
    | sets("cg_steps", 2)
    | sets("cg_damping", 0.5)
    | sets("hessian_damping", 4.0)
    | sets("pull_once", True),
    Reptile: sets("inner_lr", 0.3)
    | sets("inner_batch", 4)
    | {"inner_optimizer": lambda learner: setattr(learner, "second_moment", None)},
}
# What a learner does not have, or what is no change to what it computes of a training episode.
WITHOUT: dict[type[OptimizationLearner], set[str]] = {
    CAVIA: {"adapt"},  # its context alone
    ProtoMAML: {"head"},  # each episode's own
    ANIL: {
        *("adapt", "embed_together"),  # the body has no batch normalisation
        *("feature_memory", "feature_cache"),  # nor is it frozen
    },
    BOIL: {"adapt"},
    # the code and what lies behind it are made with the learner
    MRMAML: {"adapt", "head", "inner_lr", "regularize", "recipe", "code", "hidden"},
    MultiTask: {"adapt", "inner_gradient_clip", "inner_steps", "inner_lr", "first_order"},
}
NO_PART_IN_TRAINING = {
    *("eval_inner_steps", "eval_curve", "eval_inner_batch", "batchnorm", "attack"),  # evaluation
    *("query_among_support", "meta_dropout_samples"),
    *("metamix", "mlti"),  # the batch is mixed before; `learners/test_meta_mix.py` compiles that
    "outer",  # of tasks to act in alone
    "adapters",  # hooks, of which `MODES` has one; no other network is built later
    *("optimizer", "lr_scheduler", "gradient_clip", "nonfinite", "weights", "cosine_schedule"),
    *("final_lr", "episode_parallel", "episodes_per_chunk", "compile", "checkpoint_inner_steps"),
    *("film_after", "per_step_norm", "multi_step_loss", "derivative_annealing"),  # when it is made
    "meta_dropout",  # likewise
}


@dataclass(frozen=True)
class Halved(Classification):
    """A loss that is half of the usual one."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().loss(outputs, targets) / 2


OF_REGRESSION: set[type[OptimizationLearner]] = {MMAML}


def changes(learner: type[OptimizationLearner]) -> dict[str, Change]:
    left_out = WITHOUT.get(learner, set())
    return {n: c for n, c in (FAMILY | OWN[learner]).items() if n not in left_out}


def test_every_learner_that_is_compiled_has_its_hyperparameters_here() -> None:
    ours = {
        cls
        for cls in (getattr(fewshot.learners, name) for name in dir(fewshot.learners))
        if isinstance(cls, type) and issubclass(cls, OptimizationLearner)
    }
    assert ours - {OptimizationLearner} == set(OWN) | OF_REGRESSION
    for cls in OWN:
        known = {*changes(cls), *NO_PART_IN_TRAINING, *WITHOUT.get(cls, ())}
        assert set(parameter_names(cls)) <= known, cls


@pytest.mark.usefixtures("as_traced")
@pytest.mark.parametrize("learner", OWN)
def test_a_changed_hyperparameter_has_its_effect(learner: type[OptimizationLearner]) -> None:
    compiled, plain = make(learner, True), make(learner, False)
    before = step(plain)
    assert_same(step(compiled), before, "as made")
    for name, change in changes(learner).items():
        change(compiled)
        change(plain)
        after = step(plain)
        assert differ(before, after), f"{name} has an effect, so that the test can tell"
        assert_same(step(compiled), after, name)
        before = after


# ---------------------------------------------------------------- every mode, and what users write


def hooked(learner: Any) -> None:
    learner.backbone.layers[0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)


MODES: dict[str, Change] = {
    "dropout": lambda learner: setattr(learner.backbone.layers[2], "p", 1.0),
    "eval()": lambda learner: learner.eval(),
    "train()": lambda learner: learner.train(),
    "one module's mode": lambda learner: learner.backbone.layers[2].eval(),
    "requires_grad": lambda learner: learner.backbone.layers[0].bias.requires_grad_(False),
    "buffer": lambda learner: setattr(learner.backbone, "scale", torch.tensor(0.7).double()),
    "submodule": lambda learner: learner.backbone.layers.__setitem__(3, nn.Tanh()),
    "parameter": lambda learner: setattr(
        learner.backbone.layers[4], "bias", nn.Parameter(torch.ones(3).double())
    ),
    "epsilon of a normalisation": lambda learner: setattr(learner.backbone.layers[1], "eps", 0.5),
    "hook": hooked,
    "list of functions": lambda learner: learner.backbone.activations.append(torch.sin),
    "function in a list": lambda learner: learner.backbone.activations.__setitem__(0, torch.cos),
    "attribute of the learner": lambda learner: setattr(learner, "temperature", 2.0),
    "in a dict": lambda learner: learner.settings.update(shift=0.25),
    "in a dict of an object": lambda learner: learner.own.inside[0].update(shift=0.25),
    "in slots": lambda learner: setattr(learner.own.slots, "shift", 0.25),
    "in a set": lambda learner: learner.flags.add("square"),
    "0.0 to -0.0": lambda learner: setattr(learner, "sign", -0.0),
}


class Slots:
    """Without a __dict__."""

    __slots__ = ("shift",)

    def __init__(self) -> None:
        self.shift = 0.0


class Own:
    """A user's settings."""

    def __init__(self) -> None:
        self.inside = ({"shift": 0.0},)
        self.slots = Slots()


class Users(MAML):
    """A user's learner, with attributes of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.temperature = 1.0  # before torch's constructor, which nobody forbids
        super().__init__(*args, **kwargs)
        self.settings, self.own, self.flags, self.sign = {"shift": 0.0}, Own(), {"none"}, 0.0

    def forward_with(self, weights: Any, inputs: Any) -> Tensor:
        outputs = super().forward_with(weights, inputs) / self.temperature
        shift = self.settings["shift"] + self.own.inside[0]["shift"] + self.own.slots.shift
        if str(self.sign) == "-0.0":
            outputs = 3 * outputs
        ramp = torch.arange(outputs.shape[1]) * shift
        return (outputs.square() if "square" in self.flags else outputs) + ramp


@pytest.mark.usefixtures("as_traced")
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_every_mode_and_what_users_write_has_its_effect(parallel: str) -> None:
    compiled, plain = (
        make(Users, c, inner_lr=0.3, episode_parallel=parallel) for c in (True, False)
    )
    before = step(plain)
    assert_same(step(compiled), before, "as made")
    for name, change in MODES.items():
        change(compiled)
        change(plain)
        after = step(plain)
        assert differ(before, after), name
        assert_same(step(compiled), after, name)
        before = after


@pytest.mark.usefixtures("as_traced")
def test_how_episodes_run_may_change() -> None:
    compiled, plain = make(MAML, True), make(MAML, False)
    for learner in (compiled, plain):
        step(learner)
        learner.episode_parallel, learner.episodes_per_chunk = "vmap", 1
    assert_same(step(compiled), step(plain), "vmap")


# ---------------------------------------------------------------- what is not compiled again


def test_what_was_compiled_is_used_again(compiled: list[Any]) -> None:
    learner = make(MAML, True, inner_lr=0.3)
    learner.bounds = [1.0, 2.0]
    first = step(learner)
    once = len(compiled)
    learner.bounds = [1.0, 2.0]
    assert torch.equal(step(learner), first)
    learner.eval().train()
    learner.evaluate(batch())  # which changes what the network keeps of its last forward pass
    assert torch.equal(step(learner), first)
    assert len(compiled) == once
    learner.inner_lr = 0.5
    assert not torch.equal(step(learner), first)
    assert len(compiled) == 2 * once
    learner.inner_lr = 0.3
    assert torch.equal(step(learner), first)
    assert len(compiled) == 2 * once


@pytest.mark.parametrize("learner", [MAML, MAMLPlusPlus])
def test_the_course_of_training_compiles_nothing_again(
    learner: type[OptimizationLearner], compiled: list[Any]
) -> None:
    counts: list[int] = []

    class Count(L.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            counts.append(len(compiled))

    data = SinusoidDataModule(
        shot=3, queries=4, meta_batch_size=2, train_episodes=8, val_episodes=2, test_episodes=2
    )
    torch.manual_seed(0)
    model = learner(
        MLP(1, (4,)),
        task=data.task,
        inner_lr=0.01,  # higher ones may diverge
        episode_parallel="loop",
        compile=True,
        gradient_clip=1.0,
    )
    trainer = L.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, callbacks=[Count()], log_every_n_steps=2,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    parts = 3 if learner is MAMLPlusPlus else 1  # its steps differ in their operations
    assert len(counts) == 20
    assert len(set(counts)) == parts, counts


class Counting(MAML):
    """A user's learner that counts what it does."""

    bookkeeping = ("done",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done = self.inner_loops = 0
        self.history: list[int] = []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.done += 1
        return super().run(*args, **kwargs)

    def inner_loop(self, *args: Any) -> Any:
        self.inner_loops += 1
        self.history.append(self.inner_loops)
        return super().inner_loop(*args)


def test_neither_named_bookkeeping_nor_what_is_changed_in_an_episode_compiles_again(
    compiled: list[Any],
) -> None:
    learner = make(Counting, True)
    for _ in range(3):
        step(learner)
    once = len(compiled)
    learner.evaluate(batch())
    step(learner)
    assert len(compiled) == once
    assert learner.done == 5
    assert len(learner.history) == learner.inner_loops
    learner.inner_lr = 0.5
    step(learner)
    assert len(compiled) > once


@pytest.mark.usefixtures("as_traced")
def test_why_it_is_compiled_again_is_said(caplog: pytest.LogCaptureFixture) -> None:
    learner = make(MAML, True)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        step(learner)
        learner.inner_lr = 0.5
        learner.backbone.layers[2].p = 0.5
        step(learner)
    first, again = (record.getMessage() for record in caplog.records)
    assert first.endswith("from its cache")
    assert again.endswith(
        "; backbone.layers.2.p, inner_lr changed. If no episode reads it, name it in its class's"
        " `bookkeeping`"
    )


# ---------------------------------------------------------------- the numbers themselves


def test_a_tensor_in_the_place_of_a_dead_one_is_another() -> None:
    numbers, places, module, of = [], [], nn.Linear(2, 2), Dependencies()
    for _ in range(100):
        module.weight = nn.Parameter(torch.zeros(2, 2))
        places.append(id(module.weight))
        numbers.append(of.number(module))
        gc.collect(0)
    assert len(set(numbers)) == 100
    assert len(set(places)) == 100, "all are held"


def test_two_kinds_of_a_tensor_are_told_apart() -> None:
    module: Any = nn.Conv2d(2, 2, 2)
    of = Dependencies()
    numbers = [of.number(module)]
    changes: list[Callable[[], object]] = [
        lambda: module.double(),  # which leaves the parameters the same objects
        lambda: module.requires_grad_(False),
        lambda: module.to(memory_format=torch.channels_last),
    ]
    for change in changes:
        change()
        numbers.append(of.number(module))
    assert numbers == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (1, True, False),
        (1, 1.0, False),
        (float("nan"), float("nan"), True),
        ((1, 2), [1, 2], False),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, {2, 1}, True),
        ("a", b"a", False),
        (torch.float32, torch.float64, False),
        (torch.device("cpu"), torch.device("cpu"), True),
        ([0] * (LARGEST + 1), [0] * (LARGEST + 1), False),  # data: by which object it is
    ],
)
def test_which_values_are_the_same(before: Any, after: Any, same: bool) -> None:
    module: Any = nn.Module()
    of = Dependencies()
    module.value = before
    first = of.number(module)
    module.value = after
    assert (of.number(module) == first) == same


def test_names_that_change_places_are_seen() -> None:
    module: Any = nn.Module()
    of = Dependencies()
    module.one = 3
    first = of.number(module)
    del module.one
    module.other = 3
    assert of.number(module) != first


def test_objects_in_circles_are_looked_at_once() -> None:
    module: Any = nn.Module()
    own: Any = Own()
    of = Dependencies()
    module.own, own.back, own.module = own, own, module
    assert of.number(module) == 0
    own.back = None
    assert of.number(module) == 1


def test_where_nothing_changes_no_value_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, of = make(Users, False), Dependencies()
    looks: list[Any] = []

    class Look(dependencies._State):
        def __init__(self, *arguments: Any) -> None:
            looks.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(dependencies, "_State", Look)
    assert [of.number(learner) for _ in range(5)] == [0] * 5
    assert len(looks) == 1


def test_copies_begin_empty() -> None:
    of = Dependencies()
    assert of.number(nn.Linear(1, 1)) == 0
    assert copy.deepcopy(of).number(nn.Linear(2, 2)) == 0


def test_tasks_are_looked_into() -> None:
    of, learner = Dependencies(), MAML(MLP(1, (2,)), task={"kind": "regression"})
    first = of.number(learner)
    assert isinstance(learner.task, Regression)
    object.__setattr__(learner.task, "targets", 2)
    assert of.number(learner) != first
