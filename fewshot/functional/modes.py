"""What a module is called under: all that it computes has right second derivatives."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.modes import episode_modes
from fewshot.engine.normalization import EpisodeNorm, affine


class ModuleNorm(EpisodeNorm):
    """Batch normalisation as the module's mode says, except that running averages stay.

    In training mode by the batch at hand, in evaluation mode by the running averages.
    """

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if training or running_mean is None or running_var is None:
            return super()._batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        shape = (1, -1) + (1,) * (input.dim() - 2)
        scale = (running_var + eps).rsqrt().view(shape)
        return affine((input - running_mean.view(shape)) * scale, weight, bias)


@contextmanager
def differentiable() -> Iterator[None]:
    """Inside, modules have right second derivatives, under ``torch.vmap`` too; `call` is inside.

    Attention runs in plain operations, recurrent networks without cuDNN, affine normalisation is
    taken apart where something is vmapped, and running averages of batch normalisation stay as they
    are, because the weights that they would be of are soon gone.
    """
    vmapped = internal("torch._C._functorch.peek_interpreter_stack")() is not None
    with episode_modes("vmap" if vmapped else "loop", ModuleNorm(exact_vmap=vmapped)):
        yield


PLAIN = frozenset(
    {
        *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Unflatten),
        *(nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.Dropout),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    }
)
"""Layers whose derivatives are right as they are."""


def is_plain(module: nn.Module) -> bool:
    """Whether `module` needs nothing to be differentiated twice, which saves half of a small call.

    A module of one's own may compute anything, so that it is not plain, whatever it holds.
    """
    return all(type(part) in PLAIN for part in module.modules())


def detached_where_off(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, as constants where gradients are off."""
    if torch.is_grad_enabled():
        return tensors
    return {name: tensor.detach() for name, tensor in tensors.items()}
