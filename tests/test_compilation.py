"""The compiled inner loop: the real compiler on a small network.

What is compiled again, and what is not.
"""

import copy
import logging
import pickle
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.compiling import compiler
from fewshot.engine.compiling.compiler import Compiler
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import (
    ADML,
    ANIL,
    BOIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MAMLPlusPlus,
    MetaSGD,
    ProtoMAML,
)
from fewshot.learners.optimization.base import OptimizationLearner

ARGUMENTS: dict[str, Any] = {"inner_lr": 0.1, "inner_steps": 2, "episode_parallel": "loop"}
GRAPHS = 2
"""Of such a learner: the inner step, which is compiled once, and the query loss."""


def make(**arguments: Any) -> MAML:
    torch.manual_seed(0)
    return MAML(
        MLP(1, (4,), norm="layer"), task={"kind": "regression"}, **ARGUMENTS, **arguments
    ).double()


def meta_batch(support: int = 3) -> Episode:
    data = SinusoidDataModule(shot=support, queries=4, meta_batch_size=2, train_episodes=2)
    data.setup("fit")
    batch: Episode = next(iter(data.train_dataloader())).stacked
    return map_tensors(Tensor.double, batch)


def gradient(learner: OptimizationLearner, batch: Episode) -> Tensor:
    learner.zero_grad()
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum())
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


@pytest.mark.parametrize("first_order", [False, True])
def test_compiled_code_gives_the_same_meta_gradient(first_order: bool) -> None:
    batch = meta_batch()
    learner = make(compile=True, first_order=first_order)
    expected = gradient(make(first_order=first_order), batch)
    torch.testing.assert_close(gradient(learner, batch), expected, rtol=1e-10, atol=1e-12)
    other = gradient(make(first_order=not first_order), batch)
    assert (other - expected).abs().max() > 1e-3, "the orders differ, so that the test can tell"
    with torch.no_grad():
        for parameter in learner.parameters():
            # as an optimizer does: the compiled code reads the parameters themselves
            parameter.mul_(0.9)
    changed = copy.deepcopy(learner)
    changed.compiler = None
    torch.testing.assert_close(
        gradient(learner, batch), gradient(changed, batch), rtol=1e-10, atol=1e-12
    )


def test_what_is_compiled_is_found_again_in_the_cache() -> None:
    def hits() -> int:
        """How many graphs of a newly made learner the cache had, the compiler's memory empty."""
        torch._dynamo.reset()
        counters.clear()
        gradient(make(compile=True), meta_batch())
        assert counters["inductor"]["fxgraph_cache_bypass"] == 0
        assert not counters["aot_autograd"]["autograd_cache_hit"], (
            "it would not see that `lowering` has changed"
        )
        return counters["inductor"]["fxgraph_cache_hit"]

    hits()
    assert hits() == 2 * GRAPHS, "forward and backward"


def test_compiles_once_for_each_shape_and_says_so(
    compiled: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    learner = make(compile=True)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        gradient(learner, meta_batch())
        gradient(learner, meta_batch())
    assert len(compiled) == GRAPHS
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["Compiling the inner loop"]
    gradient(learner, meta_batch(support=2))
    assert len(compiled) == 2 * GRAPHS
    with torch.autocast("cpu", torch.bfloat16):
        gradient(learner, meta_batch())
    assert len(compiled) == 3 * GRAPHS
    gradient(learner, meta_batch())
    assert len(compiled) == 3 * GRAPHS


@pytest.mark.parametrize(
    ("learner", "how", "arguments"),
    [
        *(
            (learner, "loop", {})
            for learner in (FOMAML, ANIL, BOIL, MetaSGD, MAMLPlusPlus, CAVIA, ADML, ProtoMAML)
        ),
        (MAML, "loop", {"inner_gradient_clip": 1.0}),
        (IMAML, "loop", {"cg_steps": 2}),
        (MAML, "vmap", {}),
    ],
)
def test_more_inner_steps_take_no_more_compiling(
    learner: type[OptimizationLearner], how: str, arguments: dict[str, Any], compiled: list[Any]
) -> None:
    def make(steps: int, compile: bool) -> OptimizationLearner:
        torch.manual_seed(0)
        task = {"kind": "classification", "way": 3}
        options = {
            "inner_steps": steps,
            "episode_parallel": how,
            "compile": compile,
            "task": task,
            **arguments,
        }
        made = learner(MLP(2, (4,)), **options).double()
        if isinstance(made, MAMLPlusPlus):
            made.set_progress(0.01)  # where the losses after all steps count
        return made

    examples = Examples(torch.rand(2, 4, 2).double(), torch.tensor([[0, 1, 2, 0]]).expand(2, -1))
    batch = Episode(examples, examples)
    found = gradient(make(4, True), batch)
    torch.testing.assert_close(found, gradient(make(4, False), batch), rtol=1e-9, atol=1e-12)
    count = len(compiled)
    gradient(make(5, True), batch)
    assert len(compiled) == 2 * count
    assert (count == 1) == (how == "vmap"), "vmapped steps are one graph, which runs faster"


def test_another_way_of_the_same_shapes_is_compiled_anew(compiled: list[Any]) -> None:
    task = {"kind": "classification", "way": 2}
    learner = ProtoMAML(MLP(1, (4,)), task=task, episode_parallel="loop", compile=True)
    plain = ProtoMAML(MLP(1, (4,)), task=task, episode_parallel="loop")
    plain.load_state_dict(learner.state_dict())
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        examples = Examples(torch.linspace(-1, 1, 4).view(1, 4, 1), torch.tensor([labels]))
        batch = Episode(examples, examples)
        outcomes = [next(one.run(batch, training=True)) for one in (learner, plain)]
        torch.testing.assert_close(outcomes[0].outputs, outcomes[1].outputs)
    assert len(compiled) == 2


def test_autocast_is_in_the_compiled_graph(compiled: list[Any]) -> None:
    batch = map_tensors(Tensor.float, meta_batch())
    learner, plain = make(compile=True).float(), make().float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradient(plain, batch)
        gradient(plain, batch)
        found = gradient(learner, batch)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert any("bfloat16" in str(node.args) + str(node.kwargs) for node in compiled[0].graph.nodes)


def test_copies_of_a_learner_compile_for_themselves(compiled: list[Any]) -> None:
    learner = make(compile=True)
    expected = gradient(learner, meta_batch())
    twin = copy.deepcopy(learner)
    assert torch.equal(gradient(twin, meta_batch()), expected)
    assert len(compiled) == 2 * GRAPHS
    assert isinstance(pickle.loads(pickle.dumps(learner.compiler)), Compiler)


def test_a_compiler_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working C++ compiler found")

    learner = make(compile=True)
    assert learner.compiler is not None
    learner.compiler.backend = fail
    with pytest.raises(
        FewshotError, match=r"compile: true does not work here \(.*C\+\+.*\); set compile: false"
    ):
        gradient(learner, meta_batch())


def test_a_compiled_training_ends_in_the_weights_of_a_plain_one(compiled: list[Any]) -> None:
    def trained(compile: bool) -> Tensor:
        data = SinusoidDataModule(
            shot=3, queries=4, meta_batch_size=2, train_episodes=10, val_episodes=2
        )
        torch.manual_seed(0)
        learner = MAML(MLP(1, (4,)), task=data.task, compile=compile, **ARGUMENTS)
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(learner, data)
        return torch.cat([p.detach().flatten() for p in learner.parameters()])

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-5, atol=1e-6)
    assert len(compiled) == GRAPHS


class Graphed:
    """`torch.cuda.make_graphed_callables` on a CPU: results, gradients lie where the last lay."""

    def __init__(self, graph: Any, arguments: tuple[Tensor, ...], allow_unused_input: bool) -> None:
        assert allow_unused_input
        self.graph, self.arguments, self.parameters = graph, arguments, tuple(graph.parameters())
        self.results = [torch.empty_like(result) for result in graph(*arguments)]
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        graphed = self

        class Run(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
                for mine, given in zip(graphed.arguments, tensors, strict=False):
                    mine.copy_(given)
                with torch.enable_grad():
                    ctx.results = graphed.graph(*graphed.arguments)
                for mine, result in zip(graphed.results, ctx.results, strict=True):
                    mine.copy_(result.detach())
                return tuple(mine.detach() for mine in graphed.results)

            @staticmethod
            def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
                pairs = [
                    (r, g) for r, g in zip(ctx.results, gradients, strict=True) if r.requires_grad
                ]
                found = torch.autograd.grad(
                    [r for r, _ in pairs], graphed.parameters, [g for _, g in pairs]
                )
                for mine, gradient in zip(graphed.gradients, found, strict=True):
                    mine.copy_(gradient)
                return (None,) * len(graphed.arguments) + tuple(
                    mine.detach() for mine in graphed.gradients
                )

        results: tuple[Tensor, ...] = Run.apply(*arguments, *self.parameters)
        return results


@pytest.mark.parametrize("chunk", [1, 2])
def test_what_a_cuda_graph_writes_over_is_copied(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One chunk's results are kept while the next runs; gradients are summed over chunks."""
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", Graphed)
    learner, plain = make(compile="capture", episodes_per_chunk=chunk), make()
    monkeypatch.setattr(compiler, "_on_gpu", lambda tensors: True)
    for batch in (meta_batch(), map_tensors(lambda tensor: tensor + 0.5, meta_batch())):
        given = map_tensors(torch.clone, batch)
        expected = gradient(plain, batch)
        torch.testing.assert_close(gradient(learner, batch), expected, rtol=1e-10, atol=1e-12)
        outcomes = [
            torch.cat([o.loss for o in list(one.run(batch, training=True))])
            for one in (learner, plain)
        ]
        torch.testing.assert_close(*outcomes, rtol=1e-10, atol=1e-12)
        assert torch.equal(batch.support.targets, given.support.targets), (
            "the caller's batch is left alone"
        )


def test_capture_without_a_gpu_is_one_line() -> None:
    with pytest.raises(
        FewshotError, match="compile: capture needs a CUDA GPU, and this runs on cpu; set compile"
    ):
        gradient(make(compile="capture"), meta_batch())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compile": True}, "episode_parallel is loop and compile is True; set"),
        ({"episode_parallel": "vmap"}, "episode_parallel is vmap and compile is False; set"),
    ],
)
def test_checkpointing_is_neither_compiled_nor_vmapped(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        MAML(
            MLP(1),
            task={"kind": "regression"},
            checkpoint_inner_steps=True,
            **{**ARGUMENTS, **arguments},
        )
