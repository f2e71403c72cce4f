"""What this package uses of torch that torch does not promise to keep: the only file that may.

`USED` names all of it and says what for, `internal` gives it, imported when it is asked for:
some of it takes seconds. `missing` is what tests/test_torch_internals.py asks of a new torch before
the upper bound in pyproject.toml is raised.
"""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from fewshot.errors import FewshotError

OLDEST, TOO_NEW = (2, 6), (2, 16)
"""The bounds of pyproject.toml: the first is tested, the second is not."""

USED: dict[str, str] = {
    "torch.nn.modules.batchnorm._NormBase": "finding batch and instance normalisations",
    "torch.nn.modules.batchnorm._BatchNorm": "finding batch normalisations",
    "torch._C.DisableTorchFunction": "looking at a shape, or running a frozen network, past modes",
    "torch.utils.checkpoint._CheckpointFrame": "running checkpoints again with the fast weights",
    # tracing
    "torch.fx.experimental.proxy_tensor.make_fx": "tracing an episode as one graph",
    "torch.fx.experimental.proxy_tensor.get_proxy_mode": "noting where an inner step ends",
    "torch._C._functorch.peek_interpreter_stack": "whether a transform runs around",
    "torch.Tensor._version": "seeing that a large weight was written to",
    "torch._guards.TracingContext": "one mode for the shapes of a whole graph",
    "torch._guards.tracing": "one mode for the shapes of a whole graph",
    "torch._subclasses.fake_tensor.FakeTensorMode": "one mode for the shapes of a whole graph",
    # compiling
    "torch._dynamo.exc.TorchDynamoException": "saying in one line why a compilation failed",
    "torch._dynamo.config.patch": "one graph under several ranks too",
    "torch._dynamo.config.optimize_ddp": "one graph under several ranks too",
    "torch._functorch.config.patch": "no cache that is blind to our forms of operations",
    "torch._functorch.config.enable_autograd_cache": (
        "no cache that is blind to our forms of operations"
    ),
    "torch._inductor.compile_fx.compile_fx": "compiling with our forms of operations",
    "torch._inductor.config.triton.cudagraphs": "starting a compiled graph on a GPU as a whole",
    "torch._inductor.config.post_grad_custom_pre_pass": "our forms of pooling",
    "torch._inductor.custom_graph_pass.CustomGraphPass": "our forms of pooling",
    "torch._inductor.custom_graph_pass.get_hash_for_files": "our forms of pooling",
    "torch._inductor.pattern_matcher.CallFunctionVarArgs": "our forms of pooling",
    "torch._inductor.pattern_matcher.PatternMatcherPass": "our forms of pooling",
    "torch._inductor.pattern_matcher.register_graph_pattern": "our forms of pooling",
    "torch._inductor.decomposition.select_decomp_table": "the compiler's own forms of operations",
    "torch._prims_common.suggest_memory_format": "laying maps out as the trace counts on it",
    "torch.ops.aten._native_batch_norm_legit.no_stats": "our form of batch normalisation",
}
"""By its full name, what each is for."""


@cache
def internal(name: str) -> Any:
    """What `USED` names.

    Raises:
        FewshotError: the torch at hand does not have it.
    """
    use = USED[name]
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise FewshotError(
            f"torch {torch.__version__} has no {name}, which fewshot needs for {use}; install"
            f" {requirement()}"
        ) from error


@contextmanager
def replaced(name: str, value: Any) -> Iterator[None]:
    """Inside, what `USED` names is `value`, for torch itself."""
    internal(name)
    module, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(module)
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)


def missing() -> list[str]:
    """What the torch at hand does not have of `USED`, and what each was for."""
    gone = []
    for name, use in USED.items():
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            gone.append(f"{name} ({use})")
    return gone


def requirement() -> str:
    """The versions of torch that the package is for, as pip writes them."""
    return "torch>={}.{},<{}.{}".format(*OLDEST, *TOO_NEW)


@cache
def warn_if_untested() -> None:
    """Warn, once, of a torch outside of the bounds, which pip's user may have forced."""
    numbers = torch.__version__.split(".")
    if not OLDEST <= (int(numbers[0]), int(numbers[1])) < TOO_NEW:
        # here, so that whoever reads the table need not wait for Lightning
        from lightning.pytorch.utilities import rank_zero_warn

        rank_zero_warn(
            f"torch {torch.__version__} is untested, fewshot is for {requirement()}: compile may"
            " fail; run `pytest tests/test_torch_internals.py`, which names what is gone"
        )
