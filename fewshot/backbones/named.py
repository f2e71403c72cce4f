"""Pre-trained networks by their names: short ones, torchvision's, timm's, Hugging Face's."""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fewshot import backbones
from fewshot.backbones.pretrained import PretrainedBackbone, PretrainedVision
from fewshot.datasets.preprocessing import ImagePreprocessing, Preprocessing, TextPreprocessing
from fewshot.datasets.reading.kinds import Kind
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import check_arguments, parameter_names
from fewshot.lazy import public_names

CHANNELS = 3
LONGEST = 256
"""Pieces of a text that are read: what sentence encoders were trained with."""


class Named(NamedTuple):
    """A class of the library and the arguments that a name stands for."""

    cls: type[PretrainedBackbone]
    arguments: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        """What it reads."""
        return "image" if issubclass(self.cls, PretrainedVision) else "text"


def named(name: str, kind: Kind | None = None) -> Named:
    """What the `name` of a pre-trained network stands for.

    Args:
        name: a short name of ``fewshot list backbones``, one of its classes that have published
            weights, a network of torchvision or timm, or a folder or name of Hugging Face.
        kind: what it is to read, which tells what a name of Hugging Face means.

    Raises:
        FewshotError: there is no such network; the nearest names are told. Or it has no weights.
    """
    if name in (known := short_names()):
        return known[name]
    if name in (classes := _classes()):
        return Named(classes[name], {})
    if name in public_names("fewshot.backbones"):
        raise FewshotError(
            f"{name} has no published weights; train it by `fewshot fit` and give its checkpoint,"
            f" or choose one such as {', '.join(list(known)[:3])}"
        )
    if name in _torchvisions():
        return Named(backbones.TorchvisionBackbone, {"model": name})
    if name.partition(".")[0] in _timms():
        return Named(backbones.TimmBackbone, {"model": name})
    if "/" in name or (name and Path(name).is_dir()):
        sees = kind == "image" or Path(name, "preprocessor_config.json").is_file()
        return Named(
            backbones.HuggingFaceVision if sees else backbones.SentenceEncoder, {"model": name}
        )
    every = sorted({*known, *classes, *_timms(), *_torchvisions()})
    near = difflib.get_close_matches(name.lower(), every, 3, cutoff=0.5) or list(known)
    raise FewshotError(
        f"no pre-trained network is called {name!r}; the nearest are {', '.join(near)} (`fewshot"
        " list backbones`)"
    )


@functools.cache
def short_names() -> Mapping[str, Named]:
    """Every short name, sorted."""
    found = {
        name: Named(cls, arguments)
        for cls in _classes().values()
        for name, arguments in vars(cls).get("short_names", {}).items()
    }
    return dict(sorted(found.items()))


def made(meant: Named, given: Mapping[str, Any]) -> tuple[PretrainedBackbone, Preprocessing[Any]]:
    """The network with its weights, and what makes its inputs of files.

    Args:
        meant: the network.
        given: arguments of its class, which go before those that the name stands for.

    Raises:
        FewshotError: an argument is wrong, or the weights cannot be had.
    """
    arguments = {**meant.arguments, **given}
    if "weights" in parameter_names(meant.cls):
        arguments = {"weights": "DEFAULT", **arguments}
    if meant.kind == "text":
        return _text_encoder(meant.cls, arguments)
    arguments = {"in_channels": CHANNELS, **arguments}
    network = meant.cls(**arguments)
    assert isinstance(network, PretrainedVision)
    if "image_size" not in given:
        network.see_own_size()
    channels: Any = network.in_channels  # it takes no others than 1 and 3
    return network, ImagePreprocessing(network.image_size, channels)


def _text_encoder(
    cls: type[PretrainedBackbone], arguments: Mapping[str, Any]
) -> tuple[PretrainedBackbone, TextPreprocessing]:
    """A language model, and its own tokenizer."""
    check_arguments(cls, (), dict(arguments), partly=True)
    name = arguments.get("tokenizer") or arguments.get("model") or _own_name(cls)
    tokenizer = PretrainedTokenizer(name)
    own = {"vocab_size": len(tokenizer.vocabulary), "tokenizer": name}
    network: Any = cls(**{**own, **arguments})
    places = getattr(network.network.config, "max_position_embeddings", LONGEST)
    # RoBERTa and its like count their positions from 2 on
    longest = min(LONGEST, places - 2)
    return network, TextPreprocessing("words", longest, (), 0, name, tokenizer.json)


def _own_name(cls: type[PretrainedBackbone]) -> str:
    """The name of the one model that a class stands for.

    Raises:
        FewshotError: it stands for many.
    """
    for name, arguments in vars(cls).get("short_names", {}).items():
        if not arguments:
            return str(name)
    raise FewshotError(f"{cls.__name__} is any model of its kind; say which by its argument model")


@functools.cache
def _classes() -> Mapping[str, type[PretrainedBackbone]]:
    """The library's networks with published weights, by the names of their classes."""
    every = ((name, getattr(backbones, name)) for name in public_names("fewshot.backbones"))
    return {
        name: cls
        for name, cls in every
        if isinstance(cls, type)
        and issubclass(cls, PretrainedBackbone)
        and not issubclass(cls, backbones.PairEncoder)
    }


@functools.cache
def _timms() -> frozenset[str]:
    """The networks of timm; none where it is not installed."""
    try:
        return frozenset(require("timm", "pretrained").list_models())
    except FewshotError:
        return frozenset()


@functools.cache
def _torchvisions() -> frozenset[str]:
    """The networks of torchvision that classify images."""
    from torchvision import models  # here: it takes a second

    return frozenset(models.list_models(module=models))
