"""What goes wrong in mid-run: a one-line error, or a result that is right all the same."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import FEW, QUIET, SINUSOID, fit
from fakes import fake_image_folder
from torch.utils.data import Dataset

from fewshot import Episode, Examples, FewshotError, ImageFolderDataModule
from fewshot.cli.main import main
from fewshot.episodes.loader import EpisodeLoader


class Faulty(Dataset[Episode]):
    """A stream in which something happens when episode number 3 is drawn."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self.happens = happens

    def __getitems__(self, numbers: list[int]) -> Episode:
        if 3 in numbers:
            self.happens()
        part = Examples(torch.zeros(len(numbers), 2, 1), torch.zeros(len(numbers), 2))
        return Episode(part, part)


def refuse() -> None:
    raise FewshotError("photos/fly.png cannot be decoded (truncated);\n replace or delete it")


def cannot_read() -> None:
    raise OSError(5, "Input/output error", "store/images.bin")


def stumble() -> None:
    raise RuntimeError("a mistake of the program's")


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (refuse, r"^photos/fly\.png cannot be decoded \(truncated\); replace or delete it$"),
        (cannot_read, r"^\[Errno 5\] Input/output error: 'store/images\.bin'$"),
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            r"ended from outside \(.*\).*; lower data\.num_workers",
        ),
        (lambda: time.sleep(60), r"no meta-batch came .* in 0\.5 s; .* raise data\.worker_timeout"),
    ],
    ids=["an error", "unreadable", "killed", "hangs"],
)
def test_what_happens_in_a_worker_is_one_line(happens: Callable[[], None], message: str) -> None:
    hangs = "worker_timeout" in message
    loader = EpisodeLoader(Faulty(happens), 8, 1, num_workers=1, timeout=0.5 if hangs else 5)
    with pytest.raises(FewshotError, match=message) as caught:
        for _ in loader:
            pass
    assert "\n" not in str(caught.value)


def test_a_worker_that_is_killed_while_nobody_waits_is_told_at_the_next_batch() -> None:
    others = multiprocessing.active_children()
    loader = iter(EpisodeLoader(Faulty(lambda: None), 8, 1, num_workers=1))
    next(loader)
    (worker,) = (process for process in multiprocessing.active_children() if process not in others)
    assert worker.pid
    # until it has drawn ahead: if it dies with the lock of torch's event, the collector waits forever
    time.sleep(0.3)
    os.kill(worker.pid, signal.SIGKILL)
    worker_is_gone = time.monotonic() + 0.2
    # a training step: torch's handler of the signal would raise in it
    while time.monotonic() < worker_is_gone:
        pass
    with pytest.raises(FewshotError, match=r"ended from outside \(DataLoader worker \(pid"):
        next(loader)


def test_a_mistake_of_the_programs_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="Original Traceback"):
        list(EpisodeLoader(Faulty(stumble), 8, 1, num_workers=1))


def test_images_that_become_unreadable_are_not_missed(tmp_path: Path) -> None:
    def data(root: Path) -> ImageFolderDataModule:
        return ImageFolderDataModule(
            str(root), 8, way=3, queries=2, meta_batch_size=2, train_episodes=6, num_workers=1
        )

    root = fake_image_folder(tmp_path / "photos", 3, 4)
    expected = [batch.stacked.support.inputs for batch in data(root).train_dataloader()]
    loader = iter(data(root).train_dataloader())
    found = [next(loader).stacked.support.inputs]
    shutil.rmtree(root)
    found += [batch.stacked.support.inputs for batch in loader]
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)


def test_a_diverging_run_leaves_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (
        fit(tmp_path, *SINUSOID, "--trainer.max_epochs=1", "--model.inner_steps=8")
        / "checkpoints/last.ckpt"
    )
    before = good.read_bytes()
    wild = (
        "--model.inner_lr=1e3",
        "--model.inner_steps=8",
        "--trainer.max_epochs=3",
        f"--ckpt_path={good}",
    )
    capsys.readouterr()
    assert (
        main(["fit", *SINUSOID, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}", *wild]) == 2
    )
    (line,) = (
        line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot: error: ")
    )
    assert "the meta-gradient of meta-step 2 is not finite: the loss of episode" in line
    assert "lower inner_lr" in line
    assert good.read_bytes() == before
    for path in (tmp_path / "lightning_logs").rglob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values()), path
    resumed = fit(
        tmp_path,
        *SINUSOID,
        "--trainer.max_epochs=2",
        "--model.inner_steps=8",
        f"--ckpt_path={good}",
    )
    assert torch.load(resumed / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
