"""Two inputs in one forward pass: a network's hidden values are mixed at a drawn layer.

Manifold mixup (arXiv:1806.05236) for functions of one episode. Which layer it is, and how much of
each input, are tensors: the operations are the same whatever was drawn, so that episodes which draw
different layers are vmapped over and compiled together.

Shapes: n examples, m others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewshot.engine.modes import evaluation_mode, is_transformed
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.own_checkpoints import surrounded
from fewshot.engine.trials import untouched
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError

NOISE = 1806_05236  # the seed of inputs that are no one's

At = Callable[[int, Tensor], Tensor]
"""From a place and the hidden values there to what takes their place."""


class Mixture(NamedTuple):
    """Examples (n, ...) that are mixed with others (m, ...) on their way through a network.

    Args:
        first: the examples.
        second: the others.
        partner: which of the others each of the examples is mixed with, (n,) int64.
        share: lam, how much of the first there is; of all (), or of each (n,).
        place: the number of the layer whose input is mixed; of all () or of each (n,), int64.
    """

    first: Tensor
    second: Tensor
    partner: Tensor
    share: Tensor
    place: Tensor


def mixture_in(inputs: object) -> Mixture | None:
    """The mixture that inputs are, if they are one."""
    return inputs if isinstance(inputs, Mixture) else None


def unmixed(examples: Examples) -> Examples:
    """Examples without what is to be mixed into them."""
    mixture = mixture_in(examples.inputs)
    return examples if mixture is None else examples._replace(inputs=mixture.first)


def run_mixed(
    run: Callable[[Tensor], Tensor], mixture: Mixture, layers: Sequence[nn.Module]
) -> Tensor:
    """``run(first)``, where the input h of the drawn layer is lam h + (1 - lam) h', h' of `second`.

    Both pass through the layers before it by themselves, each normalised by its own batch.

    Args:
        run: runs the network that has the layers.
        mixture: what is mixed with what, and where.
        layers: the places: modules that `run` calls once, with one tensor before all others.
    """
    seen: dict[int, Tensor] = {}
    places = range(len(layers))
    if not is_transformed() and mixture.place.dim() == 0:  # then no other layer has to be seen
        places = range(int(mixture.place), int(mixture.place) + 1)

    def note(place: int, hidden: Tensor) -> Tensor:
        seen[place] = hidden
        return hidden

    def mix(place: int, hidden: Tensor) -> Tensor:
        other = seen[place][mixture.partner]
        shape = (-1, *[1] * (hidden.dim() - 1)) if mixture.share.dim() else ()
        share = mixture.share.to(hidden).view(shape)
        mixed = share * hidden + (1 - share) * other
        chosen = (mixture.place == place).view(shape)
        return mixed if len(places) == 1 else torch.where(chosen, mixed, hidden)

    with _hooked(layers, places, note):
        run(mixture.second)
    with _hooked(layers, places, mix):
        return run(mixture.first)


@contextmanager
def _hooked(layers: Sequence[nn.Module], places: Sequence[int], at: At) -> Iterator[None]:
    """Inside, what reaches the layers at some places is what `at` makes of it."""

    def again(function: Callable[..., Any], *args: Any) -> Any:
        with _hooked(layers, places, at):
            return function(*args)

    def before(place: int, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return at(place, args[0]), *args[1:]

    with ExitStack() as hooks:
        hooks.enter_context(surrounded(again))
        for place in places:
            hooks.enter_context(layers[place].register_forward_pre_hook(partial(before, place)))
        yield


# ---------------------------------------------------------------------- where to mix


def places_to_mix(
    network: nn.Module, run: Callable[[Tensor], Tensor], inputs: Tensor
) -> tuple[str, ...]:
    """The names of the modules of a network at whose input others may be mixed in.

    All that a network knows of its input must pass there: with nothing of the first left, the
    outputs must be those of the second. What goes past a layer, as in a residual sum, would stay
    unmixed. So each block is tried out.

    Args:
        network: has the modules.
        run: runs the network.
        inputs: (n, ...) such as it will get.

    Raises:
        FewshotError: there are none.
    """
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(NOISE))
    second = noise.to(inputs)
    everything = Mixture(
        inputs,
        second,
        torch.arange(len(inputs), device=inputs.device),
        torch.zeros((), device=inputs.device),
        torch.zeros((), dtype=torch.int64, device=inputs.device),
    )
    kept, blocks = untouched(network, inputs.device), {**dict(_blocks(network)), "": network}
    with kept, torch.no_grad(), evaluation_mode(network), EpisodeNorm(exact_vmap=False):
        sizes = _sizes(blocks, run, second)
        outputs = run(second)
        near = 1e-4 * float(outputs.abs().max())
        found = tuple(
            name
            for name, block in blocks.items()
            if sizes[name] == [len(inputs)]
            and torch.allclose(run_mixed(run, everything, [block]), outputs, 1e-3, near)
        )
    if not found:
        raise FewshotError(
            f"{type(network).__name__} has no layer that all of its input passes through, where"
            " other examples could be mixed in; leave out metamix and mlti, or choose another"
            " network"
        )
    # the network as a whole reads what its first block reads
    return tuple(filter(None, found)) or found


def _sizes(
    blocks: Mapping[str, nn.Module], run: Callable[[Tensor], Tensor], inputs: Tensor
) -> dict[str, list[int | None]]:
    """How many examples each call of each module is given; None where no tensor comes first."""
    sizes: dict[str, list[int | None]] = {name: [] for name in blocks}

    def look(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        tensor = args[0] if args and isinstance(args[0], Tensor) and args[0].dim() else None
        sizes[name].append(None if tensor is None else len(tensor))

    with ExitStack() as hooks:
        for name, block in blocks.items():
            hooks.enter_context(block.register_forward_pre_hook(partial(look, name)))
        run(inputs)
    return sizes


def _blocks(
    network: nn.Module, name: str = "", whole: bool = True
) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network with weight matrices or kernels, in the order of their definition.

    The network as a `whole`, containers, and what has one such part alone, are opened; a block of
    several ways is not.
    """
    parts = [(n, m) for n, m in network.named_children() if _has_weights(m)]
    alone = len(parts) == 1
    if parts and (whole or alone or isinstance(network, nn.Sequential | nn.ModuleList)):
        for part, module in parts:
            yield from _blocks(module, f"{name}.{part}".lstrip("."), whole and alone)
    else:
        yield name, network


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())
