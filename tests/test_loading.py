"""The list of episodes: the same whatever the workers, ranks, processes and interruptions."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from once import Once
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.datasets.functions import Sinusoid
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks, Stacked, gather
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.streams import STAGES, EpisodeStream, Stage, VaryingStream
from fewshot.episodes.types import Episode, MetaBatch, count, episode, flatten, stack
from fewshot.errors import FewshotError
from fewshot.learners import MAML


def keys(batch: MetaBatch | Episode) -> list[bytes]:
    """The bytes of each episode."""
    episodes = batch.stacked if isinstance(batch, MetaBatch) else batch
    leaves = [flatten(episode(episodes, i))[0] for i in range(count(episodes))]
    return [b"".join(leaf.numpy().tobytes() for leaf in one) for one in leaves]


def expected(stream: EpisodeStream, *numbers: int) -> list[bytes]:
    """The bytes of the episodes `numbers`, each drawn by itself."""
    return [key for number in numbers for key in keys(stack([stream[number]]))]


@pytest.fixture
def tasks(class_dataset: Callable[..., ClassDataset]) -> ClassTasks:
    return ClassTasks(class_dataset(counts=(5, 7, 6, 9, 5)), way=3, shot=1, queries=2)


@pytest.fixture
def stream(tasks: ClassTasks) -> EpisodeStream:
    return EpisodeStream(tasks, seed=3, stage="train")


def passes(loader: EpisodeLoader) -> Iterator[list[bytes]]:
    """The meta-batches of one pass after the other."""
    while True:
        for meta_batch in loader:
            yield keys(meta_batch)


# ---------------------------------------------------------------- an episode


def test_an_episode_holds_the_rows_that_its_labels_say(tasks: ClassTasks) -> None:
    one = tasks.draw(np.random.default_rng(0))
    assert one.support.targets.tolist() == [0, 1, 2]
    assert one.query.targets.tolist() == [0, 0, 1, 1, 2, 2]
    images = tasks.dataset.inputs
    assert isinstance(images, Tensor)
    owner = np.repeat(np.arange(5), tasks.counts)
    row_of = {image.numpy().tobytes(): row for row, image in enumerate(images)}
    rows = [[row_of[image.numpy().tobytes()] for image in part.inputs] for part in one]  # type: ignore[union-attr]
    classes = owner[rows[0]]
    assert len(set(classes)) == 3
    assert owner[rows[1]].tolist() == classes.repeat(2).tolist()
    assert len(set(rows[0] + rows[1])) == 9


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8),  # copied as words
        torch.randint(256, (32, 3, 5, 5), dtype=torch.uint8),  # 75 bytes: not a number of words
        torch.rand(32, 4),
        {"tokens": torch.randint(100, (32, 6)), "lengths": torch.randint(1, 6, (32,))},
    ],
    ids=["words", "bytes", "float", "dict"],
)
def test_a_meta_batch_is_its_episodes_stacked(inputs: Any) -> None:
    tasks = ClassTasks(
        ClassDataset(inputs, np.array([10, 12, 10], np.int64), ("a", "b", "c")), 2, 2, 3
    )
    rngs = [[np.random.default_rng([7, i]) for i in range(4)] for _ in range(2)]
    (together,) = tasks.draw_many(rngs[0])
    one_by_one = stack([tasks.draw(rng) for rng in rngs[1]])
    leaves, others = flatten(together)[0], flatten(one_by_one)[0]
    assert len(leaves) == (6 if isinstance(inputs, dict) else 4)
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(leaves, others, strict=True)
    )
    rows = torch.tensor([[3, 1], [0, 31]])
    taken = flatten(gather(inputs, rows))[0]
    assert all(torch.equal(a, b[rows]) for a, b in zip(taken, flatten(inputs)[0], strict=True))


def test_stacked_draws_one_after_the_other() -> None:
    class Slow(Stacked):
        def draw(self, rng: np.random.Generator) -> Episode:
            return Sinusoid(2, 3).draw(rng)

    rngs = [[np.random.default_rng([1, i]) for i in range(3)] for _ in range(2)]
    (slow,), (fast,) = Slow().draw_many(rngs[0]), Sinusoid(2, 3).draw_many(rngs[1])
    assert keys(slow) == keys(fast)


def test_a_callback_reads_the_parts_of_a_meta_batch_by_their_names() -> None:
    (one,) = Sinusoid(2, 3).draw_many([np.random.default_rng(0)])
    batch = MetaBatch([one])
    assert batch.support is one.support
    assert batch.query is one.query
    for part in ("support", "query"):
        with pytest.raises(FewshotError, match="has 2 parts, whose episodes differ in size"):
            getattr(MetaBatch([one, one]), part)


# ---------------------------------------------------------------- the list


def test_an_episode_is_given_by_seed_stage_and_number(tasks: ClassTasks) -> None:
    streams = [EpisodeStream(tasks, seed, stage) for seed in (0, 1) for stage in STAGES]
    drawn = [key for stream in streams for key in expected(stream, *range(20))]
    assert len(set(drawn)) == len(drawn)
    assert expected(EpisodeStream(tasks, 1, "val"), 7) == expected(streams[4], 7)
    both = streams[4].__getitems__([7, 3])
    assert both.numbers is not None
    assert both.numbers.tolist() == [7, 3]
    assert keys(both) == expected(streams[4], 7, 3)


SCRIPT = """
import hashlib, sys
import numpy as np, torch
from fewshot.datasets.functions import Sinusoid
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks
from fewshot.episodes.streams import EpisodeStream
images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
data = ClassDataset(torch.from_numpy(images), np.full(5, 8), tuple("abcde"))
digest = hashlib.sha256()
functions = EpisodeStream(Sinusoid(10, 20), 0, "test")  # not the datamodule's: Lightning takes seconds
for stream in (EpisodeStream(ClassTasks(data, 3, 2, 3), 5, "test"), functions):
    for number in range(20):
        for part in stream[number]:
            digest.update(part.inputs.numpy().tobytes() + part.targets.numpy().tobytes())
print(digest.hexdigest())
"""


def test_two_processes_with_different_hash_seeds_draw_the_same(
    class_dataset: Callable[..., ClassDataset],
) -> None:
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # this process has another one
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    data = class_dataset(counts=(8,) * 5)
    digest = hashlib.sha256()
    for stream in (
        EpisodeStream(ClassTasks(data, 3, 2, 3), 5, "test"),
        SinusoidDataModule(shot=10, queries=20).stream("test"),
    ):
        for number in range(20):
            for part in stream[number]:
                assert isinstance(part.inputs, Tensor)
                digest.update(part.inputs.numpy().tobytes() + part.targets.numpy().tobytes())
    assert process.stdout.strip() == digest.hexdigest()


# ---------------------------------------------------------------- workers, ranks, passes


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_in_the_list_with_every_pass(stream: EpisodeStream, workers: int) -> None:
    loader = EpisodeLoader(stream, episodes=6, meta_batch_size=2, repeat=True, num_workers=workers)
    assert len(loader) == 3
    drawn = [key for meta_batch in islice(passes(loader), 7) for key in meta_batch]
    assert drawn == expected(stream, *range(14))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_the_same_list_in_every_pass(stream: EpisodeStream, workers: int) -> None:
    loader = EpisodeLoader(stream, episodes=5, meta_batch_size=2, num_workers=workers)
    for _ in range(2):
        assert [keys(meta_batch) for meta_batch in loader] == [
            expected(stream, 0, 1),
            expected(stream, 2, 3),
            expected(stream, 4),
        ]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("episodes", [12, 13, 14, 16, 5])
def test_ranks_share_each_meta_batch_without_overlap(
    stream: EpisodeStream, episodes: int, world_size: int
) -> None:
    whole = list(EpisodeLoader(stream, episodes, 6).numbers())
    ranks = [
        EpisodeLoader(stream, episodes, 6, rank=r, world_size=world_size) for r in range(world_size)
    ]
    shares = [list(loader.numbers()) for loader in ranks]
    assert [len(loader) for loader in ranks] == [len(share) for share in shares]
    for i, numbers in enumerate(whole):
        parts = [share[i] for share in shares if i < len(share)]
        assert sorted(number for part in parts for number in part) == numbers
        for r, part in enumerate(parts):
            assert part == numbers[r::world_size]
    assert sorted(number for share in shares for part in share for number in part) == list(
        range(episodes)
    )
    drawn = [[key for meta_batch in loader for key in keys(meta_batch)] for loader in ranks]
    assert drawn == [expected(stream, *range(r, episodes, world_size)) for r in range(world_size)]


def test_ranks_share_training_episodes_in_every_pass(stream: EpisodeStream) -> None:
    ranks = [EpisodeLoader(stream, 8, 4, repeat=True, rank=r, world_size=2) for r in range(2)]
    for r, loader in enumerate(ranks):
        drawn = [key for meta_batch in islice(passes(loader), 5) for key in meta_batch]
        assert drawn == expected(stream, *range(r, 20, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_is_given_up_is_followed_by_a_whole_one(
    stream: EpisodeStream, workers: int
) -> None:
    loader = EpisodeLoader(stream, episodes=10, meta_batch_size=2, repeat=True, num_workers=workers)
    first = [key for meta_batch in islice(loader, 2) for key in keys(meta_batch)]
    iter(loader)  # asked for and never used
    second = [keys(meta_batch) for meta_batch in loader]
    assert first == expected(stream, *range(4))
    assert len(second) == 5
    assert [key for meta_batch in second for key in meta_batch] == expected(stream, *range(4, 14))


@pytest.mark.parametrize(("limit", "length"), [(3, 3), (9, 5), (0.5, 2), (1.0, 5), (None, 5)])
def test_a_limit_shortens_the_passes_but_not_the_length(
    stream: EpisodeStream, limit: int | float | None, length: int
) -> None:
    loader = EpisodeLoader(stream, episodes=10, meta_batch_size=2, repeat=True, limit=limit)
    assert len(loader) == 5  # what Lightning applies its limit to
    assert [len(list(loader)) for _ in range(2)] == [length] * 2
    assert loader.state_dict() == {"next_batch": 2 * length, "left": 0}


# ---------------------------------------------------------------- interruptions


def numbers_of(batch: MetaBatch) -> list[int]:
    assert batch.numbers is not None
    return [int(number) for number in batch.numbers]


@pytest.mark.parametrize("stage", STAGES)
def test_ten_million_episodes_take_no_more_memory_than_a_thousand(stage: Stage) -> None:
    """A pass's numbers are made one meta-batch at a time, and the list goes on to its end."""

    def peak(episodes: int) -> int:
        wanted: dict[str, Any] = {f"{stage}_episodes": episodes}
        data = SinusoidDataModule(**wanted)
        loader: EpisodeLoader = getattr(data, f"{stage}_dataloader")()
        tracemalloc.start()
        batches = [numbers_of(batch) for batch in islice(loader, 3)]
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        size = len(batches[0])
        assert batches == [list(range(i * size, i * size + size)) for i in range(3)]
        assert len(loader) == episodes // size
        return most

    peak(1000)  # what is imported at first use
    assert peak(10**7) < peak(1000) + 10_000  # bytes; a list of the numbers had 1e9


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("given", [0, 1, 3, 4, 6, 8])  # meta-batches; a pass has 4
def test_a_resumed_loader_goes_on_with_the_next_episode(
    stream: EpisodeStream, given: int, workers: int
) -> None:
    first = EpisodeLoader(stream, episodes=8, meta_batch_size=2, repeat=True, num_workers=workers)
    list(islice(passes(first), given))
    state = first.state_dict()
    assert all(type(value) is int for value in state.values())  # plain values: weights_only=True
    second = EpisodeLoader(stream, episodes=8, meta_batch_size=2, repeat=True, num_workers=workers)
    second.load_state_dict(state)
    assert len(second) == 4  # of a whole pass, even now
    rest = [keys(meta_batch) for meta_batch in second]
    assert len(rest) == 4 - given % 4  # the pass ends where it would have ended
    after = [keys(meta_batch) for meta_batch in second]
    assert len(after) == 4
    drawn = [key for meta_batch in rest + after for key in meta_batch]
    assert drawn == expected(stream, *range(2 * given, 2 * given + len(drawn)))


def test_the_position_is_that_of_all_ranks(stream: EpisodeStream) -> None:
    one, two = (EpisodeLoader(stream, 8, 4, repeat=True, rank=r, world_size=2) for r in range(2))
    next(iter(one))
    two.load_state_dict(one.state_dict())  # Lightning's checkpoint holds the first rank's
    assert keys(next(iter(two))) == expected(stream, 5, 7)


AS_LIGHTNING_WARNS = pytest.mark.filterwarnings(
    # manual optimization has stepped when a batch ends, which is what is to be saved
    "ignore:Using ModelCheckpoint with manual optimization and every_n_train_steps:UserWarning",
    # the resumed run saves nothing
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
)


class Recorder(Callback):
    """Notes the episodes that training sees.

    Saves at the end of a step, and then fails, where told to.
    """

    def __init__(self, save: tuple[int, Path] | None = None) -> None:
        self.seen: list[bytes] = []
        self.save = save

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seen += keys(batch)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.save is not None and trainer.global_step == self.save[0]:
            trainer.save_checkpoint(self.save[1])
            raise InterruptedError("on purpose")


def train(
    folder: Path, *callbacks: Callback, resume: Path | None = None, workers: int = 0, **kwargs: Any
) -> tuple[list[bytes], list[Tensor]]:
    """Train three epochs of 4 steps; gives the episodes seen and the final weights."""
    # a resumed learner must not depend on its own beginning
    torch.manual_seed(0 if resume is None else 1)
    data = SinusoidDataModule(
        shot=3,
        queries=2,
        train_queries=2,
        meta_batch_size=2,
        train_episodes=8,
        val_episodes=2,
        num_workers=workers,
    )
    learner = MAML(
        MLP(1, (6, 5)), task=data.task, lr_scheduler=lambda optimizer: StepLR(optimizer, 2, 0.7)
    )
    recorder = next(
        (callback for callback in callbacks if isinstance(callback, Recorder)), Recorder()
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=[*(c for c in callbacks if c is not recorder), recorder],
        **(
            {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
            | kwargs
        ),
    )
    trainer.fit(learner, data, ckpt_path=resume, weights_only=True)
    return recorder.seen, [p.detach().clone() for p in learner.parameters()]


Run: TypeAlias = tuple[list[bytes], list[Tensor]]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "middle": {"val_check_interval": 2},  # validation in the middle of an epoch, too
    "limit": {"limit_train_batches": 3},
    "share": {"limit_train_batches": 0.75, "reload_dataloaders_every_n_epochs": 1},
    "again": {"overfit_batches": 2, "reload_dataloaders_every_n_epochs": 1},
}


@pytest.fixture(scope="module", params=list(ARGUMENTS))
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run, Any]:
    """A run that saves after every step and at every validation; folder, what it did, arguments."""
    folder, arguments = tmp_path_factory.mktemp("uninterrupted"), ARGUMENTS[request.param]
    steps = ModelCheckpoint(
        folder, "step{step}", save_top_k=-1, every_n_train_steps=1, auto_insert_metric_name=False
    )
    validations = ModelCheckpoint(folder, "val{step}", save_top_k=-1, auto_insert_metric_name=False)
    return folder, train(folder, steps, validations, **arguments), arguments


@AS_LIGHTNING_WARNS
def test_training_goes_through_the_list_in_order(uninterrupted: tuple[Path, Run, Any]) -> None:
    stream = SinusoidDataModule(shot=3, train_queries=2).stream("train")
    folder, (seen, _), arguments = uninterrupted
    if "overfit_batches" in arguments:
        assert seen == 3 * expected(stream, *range(4))
    else:
        assert seen == expected(stream, *range(18 if "limit_train_batches" in arguments else 24))
    held = {path.stem for path in folder.glob("*.ckpt")}
    assert held == {f"step{i}" for i in range(1, len(seen) // 2 + 1)} | {
        f"val{i}"
        for i in range(0, len(seen) // 2 + 1, arguments.get("val_check_interval", len(seen) // 6))
        if i
    }


@AS_LIGHTNING_WARNS
@pytest.mark.parametrize("name", ["step1", "step3", "step4", "step6", "val4"])
def test_resumed_training_is_bit_identical(
    name: str, uninterrupted: tuple[Path, Run, Any], tmp_path: Path
) -> None:
    folder, whole, arguments = uninterrupted
    checkpoint, steps = folder / f"{name}.ckpt", int(name[-1])
    if not checkpoint.exists():  # val4 of the epochs of three steps
        checkpoint, steps = folder / "val3.ckpt", 3
    seen, weights = train(tmp_path, resume=checkpoint, **arguments)
    assert seen == whole[0][2 * steps :]
    assert all(torch.equal(a, b) for a, b in zip(weights, whole[1], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_that_failed_in_an_epoch_is_resumed_bit_identically(
    workers: int, tmp_path: Path
) -> None:
    whole = train(tmp_path)
    recorder = Recorder((6, tmp_path / "saved.ckpt"))
    with pytest.raises(InterruptedError, match="on purpose"):
        train(tmp_path, recorder, workers=workers)
    assert recorder.seen == whole[0][:12]
    seen, weights = train(tmp_path, resume=tmp_path / "saved.ckpt", workers=workers)
    assert seen == whole[0][12:]
    assert all(torch.equal(a, b) for a, b in zip(weights, whole[1], strict=True))


# ---------------------------------------------------------------- two real processes

TWO_PROCESSES = """
import sys, warnings
import lightning as L
import torch
from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.episodes.types import map_tensors

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

class Saver(L.Callback):
    def __init__(self, path):
        self.path, self.seen = path, {}
    def note(self, stage, batch):
        self.seen.setdefault(stage, []).append(map_tensors(torch.clone, batch.stacked))
    def on_train_batch_start(self, trainer, module, batch, *rest):
        self.note("train", batch)
    def on_validation_batch_start(self, trainer, module, batch, *rest):
        if not trainer.sanity_checking:
            self.note("val", batch)
    def on_fit_end(self, trainer, module):
        weights = {n: p.detach() for n, p in module.named_parameters()}
        self.save(trainer, {"seen": self.seen, "weights": weights, "val": module.columns["val"]})
    def on_test_end(self, trainer, module):
        self.save(trainer, {"test": module.columns["test"]})
    def save(self, trainer, held):
        torch.save(held, f"{self.path}-{trainer.state.fn.value}-{trainer.world_size}-{trainer.global_rank}.pt")

for devices in (2, 1):
    torch.manual_seed(0)
    data = SinusoidDataModule(shot=5, queries=6, meta_batch_size=4, train_episodes=8, eval_batch_size=1,
                              val_episodes=3, test_episodes=5)
    learner = MAML(MLP(1, (8, 8), norm="batch"), task=data.task, inner_steps=2, inner_lr=0.1,
                   episode_parallel="loop", gradient_clip=0.5)
    for fit in (True, False):
        trainer = L.Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", precision="64-true",
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=sys.argv[1],
            callbacks=[Saver(sys.argv[1] + "/run")],
        )
        if fit:
            trainer.fit(learner, data)
        else:
            trainer.test(learner, data, verbose=False)
"""


@pytest.fixture(scope="module")
def two_processes(once: Once) -> Callable[[str, int, int], Any]:
    """The same training and test by two processes (DDP, gloo) and by one.

    Gives what a rank of a run has saved.
    """

    def run(folder: Path) -> None:
        script = folder / "script.py"
        script.write_text(TWO_PROCESSES)
        # no fork, in which torch refuses to fork ranks
        command = [sys.executable, str(script), str(folder)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert process.returncode == 0, process.stderr[-3000:]

    folder = once("ddp_fork", run)
    return lambda verb, ranks, rank: torch.load(
        folder / f"run-{verb}-{ranks}-{rank}.pt", weights_only=False
    )


def test_two_processes_see_every_training_episode_once(
    two_processes: Callable[[str, int, int], Any],
) -> None:
    steps = [
        [keys(meta_batch) for meta_batch in two_processes("fit", *run)["seen"]["train"]]
        for run in ((1, 0), (2, 0), (2, 1))
    ]
    assert [len(one) for one in steps] == [4, 4, 4]
    for whole, first, second in zip(*steps, strict=True):
        assert (whole[0::2], whole[1::2]) == (first, second)
    assert len({key for step in steps[0] for key in step}) == 16


def test_two_processes_train_the_same_weights_as_one(
    two_processes: Callable[[str, int, int], Any],
) -> None:
    one, *two = (two_processes("fit", *run)["weights"] for run in ((1, 0), (2, 0), (2, 1)))
    torch.manual_seed(0)
    start = dict(MAML(MLP(1, (8, 8), norm="batch"), task={"kind": "regression"}).named_parameters())
    assert one.keys() == start.keys()
    for name, weight in one.items():
        assert weight.dtype == torch.float64
        # Batch norm takes two biases out: their gradient is rounding error, some 1e-15, of which
        # Adam makes 1e5 times as much (lr / eps).
        idle = "layers.0.bias" in name or "layers.3.bias" in name
        for rank in two:
            torch.testing.assert_close(rank[name], weight, rtol=1e-10, atol=1e-9 if idle else 1e-12)
        if not idle:
            assert (weight - start[name]).abs().max() > 1e-4


@pytest.mark.parametrize(("verb", "stage", "episodes"), [("fit", "val", 3), ("test", "test", 5)])
def test_two_processes_evaluate_each_episode_once(
    verb: str, stage: str, episodes: int, two_processes: Callable[[str, int, int], Any]
) -> None:
    one, *two = (two_processes(verb, *run)[stage] for run in ((1, 0), (2, 0), (2, 1)))
    for table in two:
        assert table["episode"].tolist() == one["episode"].tolist() == list(range(episodes))
        assert list(table) == list(one)
        for name, column in one.items():
            # the tables hold float32
            torch.testing.assert_close(table[name], column, rtol=1e-6, atol=1e-7)
    assert len(set(one["loss"].tolist())) == episodes


# ---------------------------------------------------------------- wrong sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"meta_batch_size": 3, "world_size": 2},
            "meta_batch_size 3 does not divide among 2 processes; set it to a p",
        ),
        (
            {"meta_batch_size": 0},
            "meta_batch_size 0 does not divide among 1 processes; .* multiple of 1",
        ),
        (
            {"episodes": 10, "repeat": True},
            "train_episodes 10 is not a positive multiple of meta_batch_size 4",
        ),
        (
            {"episodes": 0, "repeat": True},
            "train_episodes 0 is not a positive multiple of meta_batch_size 4",
        ),
        (
            {"episodes": 1, "world_size": 2},
            "1 episodes are too few for 2 processes; ask for 2 or more",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_errors(
    stream: EpisodeStream, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        EpisodeLoader(stream, **({"episodes": 8, "meta_batch_size": 4} | arguments))


# ---------------------------------------------------------------- meta-batches of other sizes


def varying(seed: int = 3) -> VaryingStream:
    return VaryingStream(
        [Sinusoid(shot, 4) for shot in (2, 3, 5)], seed, "train", meta_batch_size=4
    )


def test_a_meta_batch_is_drawn_from_one_of_the_distributions() -> None:
    stream = varying()
    shots = [stream[number].support.targets.shape[0] for number in range(400)]
    assert all(len(set(shots[start : start + 4])) == 1 for start in range(0, 400, 4))
    counts = [shots[::4].count(shot) for shot in (2, 3, 5)]
    assert sum(counts) == 100
    assert min(counts) > 20
    fixed = EpisodeStream(Sinusoid(shots[9], 4), 3, "train")
    # the episode of that number, only of this size
    assert expected(stream, 9) == expected(fixed, 9)


def test_its_ranks_share_the_sizes_and_its_episodes() -> None:
    whole = list(EpisodeLoader(varying(), 24, 4, repeat=True))
    ranks = [
        list(EpisodeLoader(varying(), 24, 4, repeat=True, rank=rank, world_size=2))
        for rank in range(2)
    ]
    for number, meta_batch in enumerate(whole):
        parts = [keys(ranks[rank][number]) for rank in range(2)]
        assert keys(meta_batch) == [parts[0][0], parts[1][0], parts[0][1], parts[1][1]]
        assert keys(meta_batch) == expected(varying(), *range(4 * number, 4 * number + 4))


def test_another_seed_gives_other_sizes() -> None:
    sizes = [[varying(seed)[4 * m].support.targets.shape[0] for m in range(30)] for seed in (3, 4)]
    assert sizes[0] != sizes[1]
