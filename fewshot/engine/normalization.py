"""Normalisation and recurrent layers in an episode: statistics, and right second derivatives.

Three facts force the library to take these layers into its own hands while a learner adapts:

- Adapting a network means batch normalisation by the statistics of the episode's own examples;
  running averages would be updated in place by every inner step, and mean nothing for weights that
  change.
- cuDNN's recurrent networks have no second derivatives; torch's own operations have.
- ``torch.vmap`` gives silently wrong second derivatives through the affine ``batch_norm``,
  ``layer_norm`` and ``instance_norm`` (pytorch/functorch#534). Normalising without affine and then
  scaling and shifting is exact.

`EpisodeNorm` reroutes the functional calls, so any user's network is covered as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.rerouting import Function, Rerouting

Statistics = list[tuple[Tensor, Tensor]]
"""Mean and biased variance (C,) of each batch normalisation, in the order of the forward pass."""


class EpisodeNorm(Rerouting):
    """Inside, batch normalisation uses the batch's statistics and leaves running averages alone.

    Args:
        exact_vmap: keep the affine part out of the fused kernels, for second derivatives under
            ``torch.vmap``. Costs a pass over the activations, so that it is left off where nothing
            is vmapped.
    """

    def __init__(self, exact_vmap: bool) -> None:
        super().__init__(EXACT if exact_vmap else RECURRENT)
        self.exact_vmap = exact_vmap
        self.recorded: Statistics | None = None
        self.replayed: Iterator[tuple[Tensor, Tensor]] | None = None
        self.group: int | None = None

    def __torch_function__(
        self,
        func: Function,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Reroute what is affected; let everything else through."""
        # not in `instead`: a method of its own would keep the mode till Python looks for cycles
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return self.instead.get(func, func)(*args, **(kwargs or {}))

    @contextmanager
    def record(self) -> Iterator[Statistics]:
        """Inside, collect the statistics that the forward pass normalises with."""
        self.recorded = []
        try:
            yield self.recorded
        finally:
            self.recorded = None

    @contextmanager
    def replay(self, statistics: Statistics) -> Iterator[None]:
        """Inside, normalise with these statistics instead of the batch's own."""
        self.replayed = iter(statistics)
        try:
            yield
        finally:
            self.replayed = None

    @contextmanager
    def grouped(self, size: int) -> Iterator[None]:
        """Inside, normalise each `size` examples in a row by their own statistics."""
        self.group = size
        try:
            yield
        finally:
            self.group = None

    def _batch_norm(
        self,
        input: Tensor,  # F.batch_norm's own names: users call it by keyword too
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if self.group is not None:
            groups = input.reshape(-1, self.group, *input.shape[1:])  # (groups, size, C, ...)
            axes = [axis for axis in range(groups.dim()) if axis not in (0, 2)]
            variance, mean = torch.var_mean(groups, axes, correction=0, keepdim=True)
            normal = (groups - mean) * (variance + eps).rsqrt()
            return affine(normal.flatten(0, 1), weight, bias)
        if self.recorded is None and self.replayed is None:
            if not self.exact_vmap:
                return F.batch_norm(input, None, None, weight, bias, True, 0.0, eps)
            return affine(F.batch_norm(input, None, None, None, None, True, 0.0, eps), weight, bias)
        if self.replayed is not None:
            mean, variance = next(self.replayed)
        else:
            axes = [axis for axis in range(input.dim()) if axis != 1]
            variance, mean = torch.var_mean(input, axes, correction=0)
        if self.recorded is not None:
            self.recorded.append((mean, variance))
        shape = (1, -1) + (1,) * (input.dim() - 2)
        normal = (input - mean.view(shape)) * (variance.view(shape) + eps).rsqrt()
        return affine(normal, weight, bias)


def own_averages() -> AbstractContextManager[None]:
    """Inside, batch normalisation is what its module says, whatever `EpisodeNorm` is in force.

    For networks whose features are those of one example, whichever others are beside it.
    """
    context: AbstractContextManager[None] = internal("torch._C.DisableTorchFunction")()
    return context


def forget_running_statistics(network: nn.Module) -> None:
    """Make every batch and instance normalisation use the batch at hand, without running averages.

    For networks whose weights change within an episode: averages over different weights mean
    nothing, and ``torch.func`` refuses to update them in place.
    """
    normalisation = internal("torch.nn.modules.batchnorm._NormBase")
    for module in network.modules():
        if isinstance(module, normalisation):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def normalises_batches(network: nn.Module) -> bool:
    """Whether a network has batch normalisation."""
    kind = internal("torch.nn.modules.batchnorm._BatchNorm")
    return any(isinstance(module, kind) for module in network.modules())


def _without_cudnn(recurrence: Function, *args: Any, **kwargs: Any) -> Any:
    """The recurrence in torch's own operations: cuDNN's refuses second derivatives."""
    if not torch.backends.cudnn.enabled:
        return recurrence(*args, **kwargs)
    torch.backends.cudnn.enabled = False
    try:
        return recurrence(*args, **kwargs)
    finally:
        torch.backends.cudnn.enabled = True


def affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scale and shift the channels (axis 1) of (n, C, ...)."""
    shape = (1, -1) + (1,) * (normal.dim() - 2)
    if weight is not None:
        normal = normal * weight.view(shape)
    return normal if bias is None else normal + bias.view(shape)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = F.layer_norm(input, normalized_shape, None, None, eps)
    if weight is not None:
        normal = normal * weight
    return normal if bias is None else normal + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    return affine(F.instance_norm(input, None, None, None, None, True, 0.0, eps), weight, bias)


RECURRENT: dict[Function, Function] = {
    recurrence: partial(_without_cudnn, recurrence)
    for recurrence in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
}
EXACT = RECURRENT | {F.layer_norm: _layer_norm, F.instance_norm: _instance_norm}
