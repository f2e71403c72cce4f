"""Fixtures for all tests.

What takes long to import is imported where it is used: the process that hands tests to pytest's
workers reads this file too, and they wait for it.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forks
import pytest
from once import between_workers, once

if TYPE_CHECKING:
    from fewshot.episodes.class_dataset import ClassDataset

__all__ = ["once"]  # a fixture for all tests

gc.disable()  # until the tests are collected: imports make half a million objects, which never die


def pytest_configure() -> None:
    """Have no process wait for the disk: who is killed leaves to others what is written so far.

    Only a machine that stops loses it. Of a run's half a second the ten files would take a tenth.
    """
    os.fsync = lambda fd: None


def pytest_collection_finish() -> None:
    """Have the garbage collector skip the objects of imports and tests from now on.

    It looks seldom: what tests import later and pytest keeps are a million objects, a quarter of a
    second each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(3_000, 10, 10)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the test of torch's insides run first: it says why the others fail."""
    items.sort(key=lambda item: item.path.name != "test_torch_internals.py")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Keep a fork of this process, which has all imports, for processes that tests start."""
    if session.items and not session.config.option.collectonly:
        forks.begin()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, in every process that a test starts too.

    The networks are tiny, results must not depend on the machine's cores, and threads of several
    processes that wait for one another on the same cores make a test ten times as long.
    """
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def asked_once() -> Iterator[None]:
    """What stays as it is is asked once.

    Each Trainer reads what all installed packages say of themselves, 10 ms. Where there is no GPU
    each traced operation looks for its driver, and each seed notes for it where it was set.
    """
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for kind in (torch.cuda, torch.xpu, torch.mtia):
            if not kind.is_available():
                patch.setattr(kind, "device_count", lambda: 0)
                patch.setattr(kind, "manual_seed_all", lambda seed: None)
        if registry := sys.modules.get("lightning.fabric.utilities.registry"):
            patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_data_root(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """$FEWSHOT_DATA is a folder of the session: no test reads or writes the user's cache.

    Glyphs, three seconds of drawing, lie in one folder for all of pytest's workers.
    """
    root = tmp_path_factory.mktemp("data")
    shared = between_workers(tmp_path_factory, request) / "glyphs"
    shared.mkdir(exist_ok=True)
    (root / "glyphs").symlink_to(shared, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_DATA", str(root))
        yield root


@pytest.fixture(scope="session")
def class_dataset() -> "Callable[..., ClassDataset]":
    """Make an in-memory dataset: uint8 images (n, channels, size, size), random, some a class."""
    import numpy as np
    import torch

    from fewshot.episodes.class_dataset import ClassDataset

    def make(
        counts: Sequence[int] = (8,) * 6, size: int = 8, channels: int = 1, seed: int = 0
    ) -> ClassDataset:
        shape = (sum(counts), channels, size, size)
        images = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        names = tuple(f"class{i}" for i in range(len(counts)))
        return ClassDataset(torch.from_numpy(images), np.array(counts, np.int64), names)

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; it is no part of the repository."""
    path = (Path(__file__).resolve().parents[1] / "../shared/data").resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images, and a Prototypical Network's checkpoint after two steps on it."""
    from commands import fit
    from fakes import fake_image_folder

    root = fake_image_folder(tmp_path_factory.mktemp("photos"))
    args = (
        "--data=ImageFolderDataModule",
        f"--data.root={root}",
        "--data.image_size=16",
        "--data.queries=2",
    )
    learner = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4")
    run = fit(tmp_path_factory.mktemp("run"), *learner, *args, "--test_after_fit=false")
    return root, run / "checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a Prototypical Network that was trained on texts for two steps."""
    from commands import fit
    from fakes import fake_clinc150

    root = fake_clinc150(tmp_path_factory.mktemp("texts"))
    args = ("--data=CLINC150DataModule", f"--data.root={root}", "--data.queries=2")
    learner = (
        "--model=PrototypicalNetwork",
        "--model.backbone=TextCNN",
        "--model.backbone.embedding_dim=8",
    )
    run = fit(tmp_path_factory.mktemp("run"), *learner, *args, "--test_after_fit=false")
    return run / "checkpoints/last.ckpt"


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Pictures are blank, of runs that a test starts itself too."""
    from commands import undrawn

    with undrawn():
        yield


@pytest.fixture
def double() -> Iterator[None]:
    """Floats of 64 bits, where a test does not say otherwise."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were given to the compiler, which hands them back as they are."""
    import torch

    graphs: list[Any] = []

    def compile(graph: Any, **options: Any) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", compile)
    return graphs


@pytest.fixture
def as_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled runs as traced, without notes for a compiler: half of its time."""
    import torch

    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    monkeypatch.setattr(
        "torch.fx.experimental.proxy_tensor.set_meta", lambda proxy, value: proxy, raising=False
    )
