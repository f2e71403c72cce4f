"""Features of frozen networks: made once, kept in files, never believed where they are wrong."""

import logging
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import TinyImages
from torch import Tensor, nn

from fewshot.backbones import Conv4
from fewshot.backbones.pretrained import PretrainedBackbone
from fewshot.engine.augmentation import Augmentation
from fewshot.engine.feature_bank import FeatureBank
from fewshot.engine.feature_files import FeatureFiles, identity
from fewshot.engine.normalization import own_averages
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, MANN, RFS, MetaLearner, PrototypicalNetwork
from fewshot.learners.embedding import EmbeddingLearner
from fewshot.learners.features_kept import FeaturesKept
from fewshot.learners.optimization.attacks import FGSM

TASK = {"kind": "classification", "way": 3}
IMAGES = 48
"""Of each split."""
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "fewshot.engine.feature_files")


class Frozen(PretrainedBackbone):
    """A network that does not train, and counts what it has embedded."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.network = Conv4(1, 4, width=8, pooled_blocks=2)
        self.out_features, self.scale, self.embedded = self.network.out_features, scale, 0
        self.freeze()

    bookkeeping = ("embedded",)

    def forward(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        self.embedded += len(inputs)
        with own_averages():
            features: Tensor = self.scale * self.network(inputs)
        return features


@pytest.fixture(autouse=True)
def networks_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot.learners.features_held.LEAST_FLOP", 0)


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def benchmark(**given: Any) -> TinyImages:
    sizes = {"queries": 3, "test_episodes": 20, "val_episodes": 10, "eval_batch_size": 4}
    return TinyImages(way=3, shot=2, **{**sizes, **given})


def run_test(
    network: nn.Module, cache: Any, memory: float = 512.0, **given: Any
) -> dict[str, Tensor]:
    learner = PrototypicalNetwork(
        network, task=TASK, feature_cache=cache, feature_memory=memory, **given
    )
    trainer().test(learner, benchmark(), verbose=False)
    return learner.columns["test"]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.features"))


def equal(one: dict[str, Tensor], other: dict[str, Tensor], reach: float = 1e-6) -> None:
    for name, values in other.items():
        torch.testing.assert_close(one[name], values, rtol=reach, atol=reach)


# ------------------------------------------------------------------ tests


def test_the_second_run_embeds_nothing_and_finds_what_the_slow_path_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGERS[0]):
        networks = [Frozen() for _ in range(3)]
        first, second = (run_test(network, str(tmp_path)) for network in networks[:2])
        slow = run_test(networks[2], False, memory=0.0)
    trial = 16 + 8  # two batches: features are believed when they have been made again
    # another two, as batches are filled up
    assert networks[0].embedded <= IMAGES + trial + 16
    assert networks[1].embedded == trial
    assert networks[2].embedded == 20 * 15
    equal(first, slow)
    equal(second, slow)
    (file,) = files(tmp_path)
    assert file.parent.name.startswith("Frozen-")
    told = [record.message for record in caplog.records if record.message.startswith("features")]
    assert "48 of 48 were embedded" in told[0]
    assert told[1] == f"features of the 48 test examples: found in {file.parent}"


def test_it_can_be_turned_off_and_is_in_the_cache_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    run_test(Frozen(), False)
    run_test(Frozen(), True, memory=0.0)
    assert not files(tmp_path)
    run_test(Frozen(), True)
    assert [path.parent.parent for path in files(tmp_path)] == [tmp_path / "features"]


def test_networks_that_differ_have_folders_of_their_own() -> None:
    others = [Frozen(1), Frozen(scale=2.0), Frozen().double()]
    changed = Frozen()
    next(changed.parameters()).data.view(-1)[0] += 1e-6
    seen = {identity(network) for network in [Frozen(), *others, changed]}
    assert len(seen) == 5
    assert identity(Frozen()) in seen
    assert identity(Frozen(), "cuda") not in seen


def test_a_network_that_trains_leaves_no_files(tmp_path: Path) -> None:
    run_test(Conv4(1, 4, width=8, pooled_blocks=2), str(tmp_path))
    assert not files(tmp_path)


def test_few_episodes_ask_for_no_whole_split(tmp_path: Path) -> None:
    network = Frozen()
    learner = PrototypicalNetwork(network, task=TASK, feature_cache=str(tmp_path))
    data = benchmark(test_episodes=1, queries=1, eval_batch_size=1)  # 9 of 48
    trainer().test(learner, data, verbose=False)
    bank = FeatureBank(2**20)
    FeatureFiles(files(tmp_path)[0].parent).read(bank, torch.device("cpu"))
    assert len(bank) == 9


# ------------------------------------------------------------------ what is not believed


def test_a_file_that_is_cut_off_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_test(Frozen(), str(tmp_path))
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for content in (whole[:-100], whole[:10], b"", whole[:200] + b"x" + whole[201:]):
        file.write_bytes(content)
        caplog.clear()
        equal(run_test(Frozen(), str(tmp_path)), first)
        told = [record.message for record in caplog.records if record.name == LOGGERS[1]]
        assert told == [f"{file} is cut off or damaged: its examples are embedded again"]
        assert files(tmp_path) == [file]
    network = Frozen()
    run_test(network, str(tmp_path))
    assert network.embedded == 24


def test_features_of_another_network_under_its_name_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fewshot.learners.features_kept.identity", lambda *args: "same")
    run_test(Frozen(1), str(tmp_path))
    with caplog.at_level(logging.INFO, LOGGERS[0]):
        found = run_test(Frozen(), str(tmp_path))
    told = [record.message for record in caplog.records if "another network" in record.message]
    assert told == [f"{tmp_path}/Frozen-same holds features of another network: all are made again"]
    monkeypatch.undo()
    monkeypatch.setattr("fewshot.learners.features_held.LEAST_FLOP", 0)
    equal(found, run_test(Frozen(), False, memory=0.0))
    assert len(files(tmp_path)) == 1


def test_weights_that_change_in_a_run_are_seen(tmp_path: Path) -> None:
    network = Frozen()
    kept = FeaturesKept(network, 2**20, tmp_path)
    images = torch.rand(20, 1, 4, 4)
    before = kept.of(images)
    network.load_state_dict(Frozen(1).state_dict())
    assert not torch.allclose(kept.of(images), before)
    torch.testing.assert_close(kept.of(images), network(images))


def test_two_processes_and_a_kill_leave_nothing_that_is_half(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    banks = [FeatureBank(2**20) for _ in range(2)]
    both = [FeatureFiles(tmp_path / "a") for _ in range(2)]
    for number, bank, of_one in zip((0, 1), banks, both, strict=True):
        of_one.read(bank, cpu)
        keys = [bytes([i, number] * 8) for i in range(5)] + [b"shared" + bytes(10)]
        bank.take("kind", keys, torch.full((6, 3), float(number)))
    for bank, of_one in zip(banks, both, strict=True):
        of_one.write(bank)
    read = FeatureBank(2**20)
    third = FeatureFiles(tmp_path / "a")
    third.read(read, cpu)
    assert len(read) == 11
    read.take("kind", [bytes([9] * 16)], torch.zeros(1, 3))
    third.write(read)
    assert len(files(tmp_path)) == 1  # which holds those of both
    torch.testing.assert_close(read.at("kind", [bytes([2, 1] * 8)])[1], torch.ones(1, 3))
    killed = tmp_path / "a/.fewshot-nobody-0-abc"
    killed.write_bytes(b"half")
    again = FeatureBank(2**20)
    FeatureFiles(tmp_path / "a").read(again, cpu)
    assert len(again) == 12


def test_a_file_in_the_folder_s_place_costs_the_files_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    run_test(Frozen(), str(tmp_path / "file"))
    told = [record.message for record in caplog.records if record.name == LOGGERS[1]]
    assert len(told) == 1
    assert told[0].startswith("cannot keep features in ")


# ------------------------------------------------------------------ the bound


def test_networks_that_were_used_least_recently_go_beyond_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("fewshot.learners.features_kept", "fewshot.files.caches"):
        monkeypatch.setattr(f"{place}.caches_in_use", set)
    run_test(Frozen(1), str(tmp_path))
    (one,) = files(tmp_path)
    os.utime(one.parent, (1, 1))
    size = one.stat().st_size
    monkeypatch.setenv("FEWSHOT_FEATURES_SIZE", f"{2 * size + 10}B")
    run_test(Frozen(2), str(tmp_path))
    assert len(files(tmp_path)) == 2
    run_test(Frozen(3), str(tmp_path))
    assert len(files(tmp_path)) == 2
    assert not one.exists()
    monkeypatch.undo()  # those in use stay, its own among them
    monkeypatch.setattr("fewshot.learners.features_held.LEAST_FLOP", 0)
    monkeypatch.setenv("FEWSHOT_FEATURES_SIZE", "1KB")
    run_test(Frozen(4), str(tmp_path))
    assert len(files(tmp_path)) == 3
    monkeypatch.setenv("FEWSHOT_FEATURES_SIZE", "some")
    with pytest.raises(FewshotError, match="FEWSHOT_FEATURES_SIZE is 'some'; set it to a size"):
        run_test(Frozen(), str(tmp_path))


# ------------------------------------------------------------------ ranks


def test_ranks_embed_a_share_each_and_have_all(tmp_path: Path) -> None:
    data = benchmark()
    networks = [Frozen(), Frozen()]
    own: list[dict[Any, Any]] = [{}, {}]
    ranks = [FeaturesKept(network, 2**20, tmp_path) for network in networks]

    def shares(rank: int) -> Any:
        for batch in data.every_example("test", rank, 2):
            yield batch.examples.inputs.float()  # type: ignore[union-attr]

    for both in range(2):  # the second time everybody knows what the others have
        for rank, kept in enumerate(ranks):

            def gathered(mine: dict[Any, Any], rank: int = rank) -> list[dict[Any, Any]]:
                own[rank] = mine
                return own

            kept.embed_ahead("test", shares(rank), 48, gathered, writes=rank == 0)
        assert [len(kept.bank) for kept in ranks] == [[24, 48], [48, 48]][both]
    assert [network.embedded for network in networks] == [24 + 8 + 24] * 2
    assert len(files(tmp_path)) == 1
    torch.testing.assert_close(
        ranks[0].of(torch.cat(list(shares(1)))), ranks[1].of(torch.cat(list(shares(1))))
    )


# ------------------------------------------------------------------ training


def fitted(kind: type[MetaLearner], cache: bool, **given: Any) -> tuple[MetaLearner, Frozen]:
    network = Frozen()
    torch.manual_seed(0)
    made: Any = kind
    learner: MetaLearner = made(
        network,
        task=TASK,
        feature_cache=False,
        feature_memory=512.0 if cache else 0.0,
        **({"train_classes": 6} if kind is RFS else {"learn_scale": True}),
    )
    data = benchmark(train_episodes=40, meta_batch_size=4, batch_size=12, **given)
    trainer(max_epochs=3, num_sanity_val_steps=0).fit(learner, data)
    return learner, network


@pytest.mark.parametrize("kind", [PrototypicalNetwork, RFS])
def test_episodes_of_training_gather_features_of_a_frozen_network(kind: type[MetaLearner]) -> None:
    learner, network = fitted(kind, cache=True)
    slow, slowly = fitted(kind, cache=False)
    assert network.embedded <= 2 * IMAGES + 24 < slowly.embedded
    for name, weight in learner.state_dict().items():
        torch.testing.assert_close(weight, slow.state_dict()[name], rtol=1e-5, atol=1e-6)
    equal(learner.columns["val"], slow.columns["val"], 1e-5)


def test_augmented_images_are_embedded_as_ever() -> None:
    given = {"augment": Augmentation(padding=1)}
    learner, network = fitted(PrototypicalNetwork, cache=True, **given)
    slow, _ = fitted(PrototypicalNetwork, cache=False, **given)
    assert network.embedded > 120 * 15  # of training alone
    assert isinstance(learner, EmbeddingLearner)
    torch.testing.assert_close(learner.scale, slow.scale)


def test_a_model_based_learner_gathers_them_too() -> None:
    network, slow = Frozen(), Frozen()
    for one, memory in ((network, 512.0), (slow, 0.0)):
        torch.manual_seed(0)
        learner = MANN(one, task=TASK, hidden=8, slots=6, slot_size=5, heads=2, frozen=True,
                       feature_memory=memory, feature_cache=False)  # fmt: skip
        data = benchmark(train_episodes=40, meta_batch_size=4)
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(learner, data)
    assert network.embedded <= 2 * IMAGES + 24 < slow.embedded


def anil(network: nn.Module, memory: float = 512.0, cache: Any = False, **given: Any) -> ANIL:
    torch.manual_seed(0)
    memories = {"feature_memory": memory, "feature_cache": cache}
    return ANIL(network, task=TASK, inner_lr=0.5, inner_steps=2, **memories, **given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"embed_together": True},
        {"batchnorm": "inductive", "eval_curve": "all"},
        {"episode_parallel": "vmap"},
    ],
)
def test_both_loops_of_anil_run_on_features_of_a_frozen_body(given: dict[str, Any]) -> None:
    network, slowly = Frozen(), Frozen()
    learner, slow = anil(network, **given), anil(slowly, 0.0, **given)
    for one in (learner, slow):
        data = benchmark(train_episodes=40, meta_batch_size=4)
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(one, data)
        trainer().test(one, data, verbose=False)
    # a trial in training and one in the test, as `teardown` lies between them
    assert network.embedded <= 3 * IMAGES + 2 * 24 + 16 < slowly.embedded
    for name, weight in learner.state_dict().items():
        torch.testing.assert_close(weight, slow.state_dict()[name], rtol=1e-6, atol=1e-6)
    begun = anil(Frozen(), **given).state_dict()
    assert not torch.equal(learner.state_dict()["head.weight"], begun["head.weight"])
    for stage in ("val", "test"):
        equal(learner.columns[stage], slow.columns[stage])


def test_anil_finds_features_that_another_learner_has_kept(tmp_path: Path) -> None:
    run_test(Frozen(), str(tmp_path))
    network = Frozen()
    trainer().test(anil(network, cache=str(tmp_path)), benchmark(), verbose=False)
    assert network.embedded == 24  # the trial


def test_a_frozen_body_has_its_own_averages_in_an_inner_loop() -> None:
    network, images = Frozen(), torch.rand(6, 1, 4, 4)
    learner = anil(network)
    with torch.no_grad():
        torch.testing.assert_close(network(images), Frozen()(images))
        adapted = learner.adapt(Examples(images, torch.arange(6) % 3))
        together = learner.predict(adapted, images)
        torch.testing.assert_close(learner.predict(adapted, images[:1]), together[:1])


def test_queries_that_are_attacked_are_embedded_as_ever() -> None:
    network = Frozen()
    trainer().test(
        anil(network, attack=FGSM(0.1), episode_parallel="loop"), benchmark(), verbose=False
    )
    assert network.embedded > 20 * 15


@pytest.mark.parametrize("given", [{"metamix": True}, {"mlti": "cutmix"}])
def test_what_training_mixes_is_embedded_anew(given: dict[str, Any]) -> None:
    learner, slow = anil(Frozen(), **given), anil(Frozen(), 0.0, **given)
    for one in (learner, slow):
        data = benchmark(train_episodes=8, meta_batch_size=4)
        trainer(max_epochs=1, num_sanity_val_steps=0).fit(one, data)
    found, expected, before = (one.state_dict() for one in (learner, slow, anil(Frozen())))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found["head.weight"], before["head.weight"])
    equal(learner.columns["val"], slow.columns["val"])
