"""Every learner of the catalogue and a benchmark it can learn, both tiny: what must hold for all.

A new learner is covered by itself. It needs a line below only to be small, or where it takes
another kind of task.
"""

import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from fakes import fake_fewglue, fake_fewrel, fake_wiki_one, save_pair
from torch import nn
from torch.optim import SGD

from fewshot import (
    MLP,
    TRPO,
    BanditDataModule,
    Conv4,
    EntityVectors,
    FewGLUEDataModule,
    FewRelDataModule,
    FewshotError,
    GaussianProcessDataModule,
    MaskedLanguageModel,
    NavigationDataModule,
    NeighbourEncoder,
    PairEncoder,
    ProMP,
    SegmentationFolderDataModule,
    TabularMDPDataModule,
    WikiOneDataModule,
)
from fewshot.cli.catalogue import find, learners
from fewshot.datamodules import EpisodicDataModule, ImageDataModule
from fewshot.datamodules.images import FloatImages
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.hyperparameters import parameter_names
from fewshot.learners import MetaLearner

OF_LANGUAGE_MODELS = {"BERTPair", "FineTuneText", "PET"}
"""Those that need a language model and its texts, and the extra ``fewshot-lightning[text]`` for both."""
LEFT_OUT = set() if importlib.util.find_spec("transformers") else OF_LANGUAGE_MODELS
NAMES = [entry.name for entry in learners() if entry.name not in LEFT_OUT]
REFERENCES = {
    *("BayesOptimum", "EpsilonGreedy", "GittinsIndex", "RandomPolicy", "ThompsonSampling", "UCB1"),
    *("PSRL", "ToldGoal"),
}
"""Policies that act as they are written."""
UNTRAINED = {
    *("FineTuneText", "GaussianProcess", "PET", "SimpleShot", "TailFrequency", "TransE"),
    *REFERENCES,
}
"""Those with nothing to train before a task is seen."""
TRAINED = [name for name in NAMES if name not in UNTRAINED]
DAMPED = TRPO(damping=0.01, cg_iterations=5)
"""So that a nearly singular Hessian does not make much of how two processes round."""
ACTING: dict[str, tuple[str, dict[str, Any]]] = {
    "MAMLActing": ("MAML", {}),
    "MAMLByTRPO": ("MAML", {"outer": DAMPED, "optimizer": functools.partial(SGD, lr=1.0)}),
    "MAMLByProMP": ("MAML", {"outer": ProMP(epochs=2)}),
    "CAVIAActing": ("CAVIA", {}),
    "ReptileActing": ("Reptile", {"inner_steps": 2}),
}
"""Learners that take images too, here of navigation: their class and its arguments."""

SMALL: dict[str, dict[str, Any]] = {
    "ANP": {"width": 8},
    "BERTPair": {"dropout": 0.0},
    "CNP": {"width": 8},
    "FEAT": {"dropout": 0.0},
    "FineTune": {"steps": 3},
    "FineTuneText": {"steps": 3},
    "GMatching": {"dropout": 0.0},  # which two processes draw apart, as of BERTPair
    "IMAML": {"inner_steps": 3, "cg_steps": 2},
    "MAMLPlusPlus": {"inner_steps": 2},
    "MANN": {"hidden": 8, "slots": 6, "slot_size": 5, "heads": 2},
    "PET": {"steps": 2, "distil_steps": 2},
    "PTMAP": {"steps": 3},
    "PsCo": {"queue": 16, "hidden": 8, "projected": 8, "task_shots": 1},
    "RL2": {"hidden": 8, "epochs": 1, "begin_episodes": 2, "lengthen_every": 1},
    "RelationNetwork": {"hidden": 8},
    "Reptile": {"inner_steps": 2},
    "TIM": {"steps": 3},
    "TransductiveFineTuning": {"steps": 3},
    "SNAIL": {"filters": 4, "keys": (4, 4, 4), "values": (4, 4, 4)},
}
"""Arguments that make a learner quick."""

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "CNAPs": {"pooled_blocks": 2},  # scales and shifts its batch normalisation
    "SimpleCNAPs": {"pooled_blocks": 2},
    "PANet": {"pooled_blocks": 2, "norm": "none"},
}
"""Learners that need a Conv4, and its arguments; all others have an MLP."""


class TinyImages(ImageDataModule):
    """Six classes of images of 4x4 pixels in each split: a pattern a class, and noise."""

    benchmark, can_download, in_channels, image_size = "TinyImages", False, 1, 4
    CLASSES: ClassVar[int] = 6

    def load(self) -> dict[str, ClassDataset]:
        rng = np.random.default_rng(0)
        patterns = rng.integers(0, 200, (3 * self.CLASSES, 1, 1, 4, 4))
        images = (patterns + rng.integers(0, 56, (3 * self.CLASSES, 8, 1, 4, 4))).astype(np.uint8)
        names, size = tuple(f"class{i}" for i in range(self.CLASSES)), 8 * self.CLASSES
        parts = torch.split(torch.from_numpy(images.reshape(-1, 1, 4, 4)), size)
        counts = np.full(self.CLASSES, 8, np.int64)
        return {
            stage: ClassDataset(part, counts, names)
            for stage, part in zip(("train", "val", "test"), parts, strict=True)
        }


SIZES: dict[str, Any] = {
    "queries": 3,
    "meta_batch_size": 4,
    "batch_size": 12,
    "eval_batch_size": 2,
    "train_episodes": 40,
    "val_episodes": 5,
    "test_episodes": 7,
}


def benchmarks(name: str, **sizes: Any) -> Iterator[EpisodicDataModule]:
    """One benchmark a kind of task; for a language model the one that it can learn.

    Each is made when it is asked for: most learners take the first.
    """
    given = SIZES | sizes
    if name in OF_LANGUAGE_MODELS:
        root, model = texts()
        own: dict[str, Any] = {"root": str(root), "tokenizer": str(model), "max_length": 64}
        if name != "BERTPair":  # a task and its own examples
            judged = {key: given[key] for key in ("val_episodes", "test_episodes")}
            yield FewGLUEDataModule(subset="CB", shot=8, **own, **judged)
            return
        own |= {"val_relations": 6, "way": 3, "shot": 1}
        yield FewRelDataModule("train_wiki_subset", test="val_wiki", **own, **given)
        return
    yield TinyImages(way=3, shot=2, **given)
    yield GaussianProcessDataModule(**{"shot": 4, **given})
    yield SegmentationFolderDataModule(
        str(masks()), MASKS, image_size=16, min_pixels=16, **given | {"queries": 1}
    )
    yield WikiOneDataModule(str(graph()), dimensions=8, embedding_epochs=2, shot=2, **given)
    yield BanditDataModule(arms=3, pulls=4, **given)
    yield TabularMDPDataModule(states=3, actions=2, horizon=2, trial_episodes=2, **given)
    yield NavigationDataModule(horizon=4, **given)


MASKS = {"train": {"a": 1, "b": 2}, "val": {"c": 3, "d": 4}, "test": {"e": 5, "f": 6}}


@functools.cache
def masks() -> Path:
    """A folder of images with masks, made once a process."""
    root = Path(tempfile.mkdtemp())
    for split, classes in MASKS.items():
        for i in range(12):
            values = np.zeros((64, 64), np.uint8)
            values[3 * i :, 8 + 4 * i :] = list(classes.values())[i % 2]
            save_pair(root / f"images/{split}/{i}.png", root / f"masks/{split}/{i}.png", values)
    return root


@functools.cache
def graph() -> Path:
    """Wiki-One's files, made once a process."""
    return fake_wiki_one(Path(tempfile.mkdtemp()))


@functools.cache
def texts() -> tuple[Path, Path]:
    """FewRel's files and FewGLUE's, and a language model for both, made once a process."""
    root = Path(tempfile.mkdtemp())
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # the same model in each process
        fake_fewrel(fake_fewglue(root / "texts"))
    return root / "texts", root / "texts/bert"


def tiny_backbone(name: str, benchmark: EpisodicDataModule) -> nn.Module:
    """A backbone that the learner `name` takes and that is as small as can be."""
    if name in CONVOLUTIONS and isinstance(benchmark, FloatImages):
        return Conv4(benchmark.in_channels, benchmark.image_size, width=4, **CONVOLUTIONS[name])
    if isinstance(benchmark, WikiOneDataModule):
        size, vectors = (benchmark.entities, benchmark.dimensions), benchmark.entity_vectors
        if name == "GMatching":
            return NeighbourEncoder(
                size[0],
                benchmark.relations,
                benchmark.edges,
                size[1],
                benchmark.neighbours,
                vectors,
            )
        return EntityVectors(*size, vectors)
    if name in OF_LANGUAGE_MODELS:
        assert isinstance(benchmark, FewRelDataModule | FewGLUEDataModule)
        made = PairEncoder if name == "BERTPair" else MaskedLanguageModel
        model = made(benchmark.vocab_size, benchmark.tokenizer)
        for weight in model.parameters():  # which are the folder's, where they should be the seed's
            weight.data += 0.1 * torch.randn_like(weight)
        return model
    return MLP(getattr(benchmark, "in_features", 1), (8,))


def pair(
    name: str,
    seed: int = 0,
    candidates: Iterable[EpisodicDataModule] | None = None,
    make_backbone: Callable[[str, EpisodicDataModule], nn.Module] = tiny_backbone,
    given: Mapping[str, Any] | None = None,
    **sizes: Any,
) -> tuple[MetaLearner, EpisodicDataModule]:
    """The learner `name`, its weights drawn by `seed`, and a benchmark that it takes.

    Args:
        name: a class of the catalogue, or one of `ACTING`.
        seed: of the weights.
        candidates: benchmarks, the first of which that the learner takes is given; None means the
            tiny ones.
        make_backbone: makes a backbone for the learner and the benchmark.
        given: arguments of the learner; None means those that make it quick.
        **sizes: arguments of the tiny benchmarks.
    """
    if name in ACTING:
        name, given = ACTING[name]
        candidates = [NavigationDataModule(horizon=4, **SIZES | sizes)]
    cls = find(name)
    assert cls is not None
    refusals = []
    for benchmark in benchmarks(name, **sizes) if candidates is None else candidates:
        facts = [fact for fact in parameter_names(cls) if fact not in ("backbone", "batchnorm")]
        stated = {fact: getattr(benchmark, fact) for fact in facts if hasattr(benchmark, fact)}
        # `protocol` is a benchmark's method and MANN's choice
        arguments = {fact: value for fact, value in stated.items() if not callable(value)}
        if "backbone" in parameter_names(cls):
            torch.manual_seed(seed)
            arguments["backbone"] = make_backbone(name, benchmark)
            for module in arguments["backbone"].modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                    # as of a trained network: its features are no numbers near 0
                    module.running_var.fill_(0.02)
        if "encoder" in parameter_names(cls):  # of a set of images
            arguments["encoder"] = MLP(getattr(benchmark, "in_features", 1), (8,))
        try:
            learner = cls(**arguments, **(SMALL.get(name, {}) if given is None else given))
        except (FewshotError, TypeError) as error:  # a TypeError: the benchmark lacks a fact
            refusals.append(str(error))
        else:
            assert isinstance(learner, MetaLearner)
            return learner, benchmark
    raise AssertionError(f"{name} takes no benchmark of {__file__}; add one: {refusals}")
