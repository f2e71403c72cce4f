"""Each example of a validation or test is embedded once, where that changes no result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import NAMES, REFERENCES, TinyImages, pair
from torch import Tensor, nn

from fewshot.backbones import MLP, BagOfWords, BiLSTM, Conv4, TextCNN
from fewshot.datamodules import EpisodicDataModule
from fewshot.engine.feature_bank import FeatureBank
from fewshot.episodes.types import Episode, Examples, Inputs, map_tensors
from fewshot.learners import MetaLearner, PrototypicalNetwork
from fewshot.learners.embedding_once import EmbedsOnce
from fewshot.learners.features_held import LEAST_FLOP, FeaturesHeld
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means

ONCE = {
    *("BDCSPN", "Baseline", "BaselinePlusPlus", "FEAT", "LaplacianShot", "MANN", "MatchingNetwork"),
    *("NearestNeighbour", "PANet", "PTMAP", "PrototypicalNetwork", "PsCo", "R2D2", "RFS"),
    *("RelationNetwork", "RidgeRegression", "SNAIL", "SiameseNetwork", "SimpleShot", "TIM"),
    *("TipAdapter", "TransductiveFineTuning"),
}
"""Learners that embed an example once. `FineTune` does where the head alone adapts."""

AS_EVER = {
    **dict.fromkeys(REFERENCES, "has no network"),
    "ADML": "adapts the network to each episode, and attacks its inputs",
    "ANIL": "normalises by the statistics of each episode, unless its body is frozen",
    "ANP": "no point of a function is drawn twice",
    "BERTPair": "reads query and support as one text: there are no features of either",
    "BOIL": "adapts the network to each episode",
    "CAVIA": "has context parameters in the network, which each episode sets",
    "CNAPs": "scales and shifts the network for each episode",
    "CNP": "no point of a function is drawn twice",
    "FOMAML": "adapts the network to each episode",
    "FineTune": "adapts the network to each episode, unless the head alone",
    "FineTuneText": "adapts the network to each task",
    "GMatching": "looks up vectors of entities and encodes pairs of them, all candidates of a query",
    "GaussianProcess": "no point of a function is drawn twice, and there is no network",
    "IMAML": "adapts the network to each episode",
    "MAML": "adapts the network to each episode",
    "MAMLPlusPlus": "adapts the network to each episode",
    "MetaR": "looks up vectors of entities, which is no work",
    "MMAML": "adapts the network to each episode",
    "MRMAML": "draws the weights of its encoder, or the codes, and adapts behind it",
    "TAML": "adapts the network to each episode",
    "MetaSGD": "adapts the network to each episode",
    "MultiTask": "adapts the network to each episode",
    "PET": "adapts the network to each task",
    "RL2": "sees no observation twice",
    "ProtoMAML": "adapts the network to each episode",
    "Reptile": "adapts the network to each episode",
    "SimpleCNAPs": "scales and shifts the network for each episode",
    "TailFrequency": "has no network",
    "TransE": "looks up vectors of entities, which is no work",
}
"""All others, and why they go on as ever."""

TASK = {"kind": "classification", "way": 3}


class Counts:
    """How many features were asked of a bank, and how many it had embedded for that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = self.embedded = 0
        self.each: list[int] = []  # of every look at the bank that made features
        ask = FeatureBank.features

        def features(bank: FeatureBank, kind: Any, keys: Any, embed: Any, device: Any) -> Tensor:
            def counted(places: Tensor) -> Tensor:
                self.embedded += len(places)
                self.each.append(len(places))
                found: Tensor = embed(places)
                return found

            self.asked += len(keys)
            return ask(bank, kind, keys, counted, device)

        monkeypatch.setattr(FeatureBank, "features", features)


@pytest.fixture(autouse=True)
def networks_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are as small as can be."""
    monkeypatch.setattr("fewshot.learners.features_held.LEAST_FLOP", 0)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def columns_of(
    learner: MetaLearner, benchmark: EpisodicDataModule, **options: Any
) -> dict[str, Tensor]:
    trainer(**options).test(learner, benchmark, verbose=False)
    return learner.columns["test"]


def test_every_learner_is_accounted_for() -> None:
    assert ONCE | AS_EVER.keys() >= set(NAMES)
    assert not ONCE & AS_EVER.keys()


@pytest.mark.parametrize("precision", ["64-true", "32-true"])
@pytest.mark.parametrize("name", sorted(ONCE))
def test_an_example_is_embedded_once_and_results_stay(
    name: str, precision: Any, counts: Counts
) -> None:
    tables = []
    for memory in (512.0, 0.0):
        learner, benchmark = pair(name, test_episodes=12)
        assert isinstance(learner, EmbedsOnce)
        learner.feature_memory = memory
        tables.append(columns_of(learner, benchmark, precision=precision))
    images = 12 if name == "PANet" else 48
    assert counts.embedded <= images < counts.asked  # those of the split, asked for more often
    reach = 1e-12 if precision == "64-true" else 1e-5
    for column, values in tables[1].items():
        torch.testing.assert_close(tables[0][column], values, rtol=reach, atol=reach)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ONCE])
def test_others_go_on_as_ever(name: str, counts: Counts) -> None:
    learner, benchmark = pair(name)
    columns_of(learner, benchmark, limit_test_batches=2)
    assert counts.asked == 0, AS_EVER[name]


@pytest.mark.parametrize(("make", "worth"), [(MLP, False), (BagOfWords, False), (Conv4, True)])
def test_what_is_made_as_quickly_as_it_is_found_is_not_held(
    make: Any, worth: bool, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    monkeypatch.setattr("fewshot.learners.features_held.LEAST_FLOP", LEAST_FLOP)
    network: nn.Module
    if make is BagOfWords:
        network, batch = BagOfWords(50), of_texts(texts(40, 30), 20, 0)
    else:
        network = MLP(1024) if make is MLP else Conv4(1, 32, width=32)
        batch = episodes(4, torch.rand(60, 1, 32, 32))
    learner = PrototypicalNetwork(network, task=TASK).eval()
    with held(learner):
        learner.evaluate(batch)
    assert (counts.asked > 0) == worth


def test_a_head_alone_is_fine_tuned_on_features_that_are_held(counts: Counts) -> None:
    learner, benchmark = pair("FineTune", given={"adapt": "head", "steps": 3}, test_episodes=12)
    columns_of(learner, benchmark)
    assert counts.embedded <= 48 < counts.asked


# ------------------------------------------------------------------ to the bit


def conv(**options: Any) -> PrototypicalNetwork:
    torch.manual_seed(0)
    network = Conv4(1, 16, width=8)
    network(torch.rand(20, 1, 16, 16))  # running averages that are not the trivial ones
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.mul_(0.02)  # features that are no numbers near 0
    return PrototypicalNetwork(network, task=TASK, **options).eval()


def episodes(number: int, images: Tensor, seed: int = 0) -> Episode:
    """3-way 1-shot episodes (B, ...) of images (n, ...), whose labels are their places modulo 3."""
    torch.manual_seed(seed)
    drawn = [
        torch.randperm(len(images) // 3)[:4, None] * 3 + torch.arange(3) for _ in range(number)
    ]
    rows = torch.stack(drawn)  # B, 4, 3
    support, query = rows[:, :1].flatten(1), rows[:, 1:].flatten(1)
    return Episode(Examples(images[support], support % 3), Examples(images[query], query % 3))


@contextmanager
def held(learner: EmbedsOnce, mebibytes: float = 512.0) -> Iterator[FeaturesHeld]:
    """Inside, the learner holds features, as in a validation."""
    learner.features_held = FeaturesHeld(learner, int(mebibytes * 2**20))
    try:
        yield learner.features_held
    finally:
        learner.features_held = None


def logits(learner: MetaLearner, batch: Episode) -> Tensor:
    """Those of an evaluation in which every episode stands by itself."""
    parts = [map_tensors(lambda t: t[i : i + 1], batch) for i in range(len(batch.query.targets))]  # noqa: B023
    return torch.cat([learner.evaluate(part).outputs for part in parts])


def test_features_do_not_depend_on_which_episodes_ask_first() -> None:
    learner, batch = conv(), episodes(9, torch.rand(60, 1, 16, 16))
    with held(learner):
        forth = logits(learner, batch)
    with held(learner):
        back = logits(learner, map_tensors(lambda t: t.flip(0), batch)).flip(0)
    with held(learner):
        together = learner.evaluate(batch).outputs
    assert torch.equal(forth, back)
    assert torch.equal(forth, together)


@pytest.mark.parametrize("mebibytes", [0.0002, 0.001, 1])
def test_what_does_not_go_into_the_memory_is_embedded_when_asked_for(
    mebibytes: float, counts: Counts
) -> None:
    learner, batch = conv(), episodes(9, torch.rand(60, 1, 16, 16))
    plain = logits(learner, batch)
    with held(learner, mebibytes) as features:
        torch.testing.assert_close(logits(learner, batch), plain, rtol=1e-5, atol=1e-5)
    assert features.bank.size <= mebibytes * 2**20
    assert (counts.embedded == len(features.bank)) == (mebibytes == 1)
    assert counts.embedded < counts.asked


def test_it_is_the_same_for_any_meta_batch_and_any_workers(counts: Counts) -> None:
    tables = []
    several: tuple[dict[str, Any], ...]
    several = ({"eval_batch_size": 1}, {"eval_batch_size": 4, "num_workers": 2})
    for sizes in several:
        learner, benchmark = pair("PrototypicalNetwork", test_episodes=9, **sizes)
        tables.append(columns_of(learner, benchmark))
    assert all(torch.equal(tables[0][name], values) for name, values in tables[1].items())
    assert 0 < counts.embedded <= 2 * 48


@pytest.mark.parametrize(
    ("given", "many", "first"),
    [
        ({}, 24, 48),  # 360 examples are asked for, each more than seven times
        ({}, 12, 15),  # less than four times: those that episodes ask for, when they do
        ({"feature_memory": 0.0005}, 24, 48),  # the rest of the 48 does not go in
        ({"batchnorm": "transductive"}, 24, 0),
    ],
)
def test_what_is_asked_for_often_is_embedded_ahead_of_the_episodes(
    given: dict[str, Any], many: int, first: int, counts: Counts
) -> None:
    name = "PrototypicalNetwork"
    learner, benchmark = pair(name, given=given, test_episodes=many, eval_batch_size=1)
    table = columns_of(learner, benchmark)
    assert counts.each[:1] == [first][: bool(first)]
    assert (len(counts.each) == 1) == (first == 48 and not given)
    assert isinstance(learner, EmbedsOnce)
    learner.feature_memory = 0.0
    for column, values in columns_of(learner, benchmark).items():
        torch.testing.assert_close(table[column], values, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ never stale


def step(learner: MetaLearner) -> None:
    optimizer = torch.optim.SGD(learner.parameters(), 1e-3)
    learner.backbone(torch.rand(8, 1, 16, 16)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def load(learner: MetaLearner) -> None:
    learner.load_state_dict({key: 1.5 * value for key, value in learner.state_dict().items()})


def behind_the_back(learner: MetaLearner) -> None:
    next(learner.parameters()).data.mul_(1.5)  # no version counter hears of it


def sign(learner: MetaLearner) -> None:
    next(learner.parameters()).data.neg_()  # nor does any norm


def average(learner: MetaLearner) -> None:
    next(b for name, b in learner.named_buffers() if name.endswith("running_mean")).data.add_(0.5)


def other_network(learner: MetaLearner) -> None:
    torch.manual_seed(1)
    learner.backbone = Conv4(1, 16, width=8).eval()


def setting(learner: MetaLearner) -> None:
    next(m for m in learner.modules() if isinstance(m, nn.BatchNorm2d)).eps = 0.5


CHANGES = [step, load, behind_the_back, sign, average, other_network, setting]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_anything_is_seen(change: Callable[[MetaLearner], None]) -> None:
    learner, batch = conv(), episodes(4, torch.rand(60, 1, 16, 16))
    with held(learner) as features:
        before = learner.evaluate(batch).outputs
        assert len(features.bank)
        change(learner)
        after = learner.evaluate(batch).outputs
    torch.testing.assert_close(after, learner.evaluate(batch).outputs, rtol=1e-4, atol=1e-4)
    assert (after - before).abs().max() > 1e-3  # it was a change


def test_another_precision_is_seen() -> None:
    learner, batch = conv(), episodes(4, torch.rand(60, 1, 16, 16))
    with held(learner):
        single = learner.evaluate(batch).outputs
        with torch.autocast("cpu", torch.bfloat16):
            mixed = learner.evaluate(batch).outputs
        double = learner.double().evaluate(map_tensors(_as_double, batch)).outputs
    exact = learner.evaluate(map_tensors(_as_double, batch)).outputs
    torch.testing.assert_close(double, exact, rtol=1e-12, atol=1e-12)
    assert (single - exact).abs().max() < 1e-2 * (mixed - exact).abs().max()


def _as_double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def test_validations_of_a_run_see_the_weights_move(counts: Counts) -> None:
    tables: list[dict[str, Tensor]] = []
    for memory in (512.0, 0.0):
        seen: list[Tensor] = []

        class Losses(L.Callback):
            def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
                seen.append(pl_module.columns["val"]["loss"])  # noqa: B023

        learner, benchmark = pair("PrototypicalNetwork", train_episodes=8, val_episodes=8)
        assert isinstance(learner, EmbedsOnce)
        learner.feature_memory = memory
        trainer(max_epochs=3, callbacks=[Losses()], precision="64-true").fit(learner, benchmark)
        tables.append(dict(enumerate(seen)))  # type: ignore[arg-type]
        assert learner.features_held is None  # an epoch's end frees the memory
    assert counts.asked
    for number, losses in tables[1].items():
        torch.testing.assert_close(tables[0][number], losses, rtol=1e-10, atol=1e-10)
    assert len({float(losses.mean()) for losses in tables[1].values()}) == len(tables[1]) >= 3


# ------------------------------------------------------------------ not where it must not be


class Network(nn.Module):
    """A linear layer, and what a subclass makes of its features."""

    out_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(256, 4), 0
        self.norm = nn.BatchNorm1d(4, track_running_stats=type(self) is not OfTheBatch)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.of(self.layer(inputs.flatten(1)))
        return found

    def of(self, features: Tensor) -> Tensor:
        return features


class OfTheBatch(Network):
    def of(self, features: Tensor) -> Tensor:
        found: Tensor = self.norm(features)
        return found


class AroundTheMean(Network):
    def of(self, features: Tensor) -> Tensor:
        return features - features.mean(0)


class OneAfterAnother(Network):
    def of(self, features: Tensor) -> Tensor:
        return features.cumsum(0)


class BySize(Network):
    def of(self, features: Tensor) -> Tensor:
        return features / len(features)


class Noisy(Network):
    def of(self, features: Tensor) -> Tensor:
        return nn.functional.dropout(features, 0.5, training=True)


class Counting(Network):
    def of(self, features: Tensor) -> Tensor:
        self.seen += 1
        return features * self.seen


class InTraining(Network):
    def of(self, features: Tensor) -> Tensor:
        self.norm.train()
        found: Tensor = self.norm(features)
        return found


MIXING = [OfTheBatch, AroundTheMean, OneAfterAnother, BySize, Noisy, Counting, InTraining]


@pytest.mark.parametrize("network", MIXING)
def test_a_network_that_sees_more_than_the_example_embeds_as_ever(
    network: type[Network], counts: Counts
) -> None:
    batch, found = episodes(4, torch.rand(60, 1, 16, 16)), []
    for holds in (True, False):
        torch.manual_seed(2)
        learner = PrototypicalNetwork(network(), task=TASK).eval()
        torch.manual_seed(3)
        if holds:
            with held(learner):
                found.append(learner.evaluate(batch).outputs)
        else:
            found.append(learner.evaluate(batch).outputs)
        if network is Counting:  # a trial counts too
            found[-1] /= found[-1].abs().max()
    assert counts.asked == 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_transductive_evaluation_goes_on_as_ever(counts: Counts) -> None:
    learner = conv(batchnorm="transductive")
    batch = episodes(4, torch.rand(60, 1, 16, 16))
    with held(learner):
        assert torch.equal(
            learner.evaluate(batch).outputs, conv(batchnorm="transductive").evaluate(batch).outputs
        )
    assert counts.asked == 0


def test_training_and_gradients_go_on_as_ever(counts: Counts) -> None:
    learner, batch = conv(), episodes(4, torch.rand(60, 1, 16, 16))
    with held(learner):
        (outcome,) = learner.run(batch, training=False)  # outside of `evaluate`
        assert outcome.loss.requires_grad
        list(learner.train().run(batch, training=True))
        learner.evaluate(batch)  # a network that is being trained
    assert counts.asked == 0


# ------------------------------------------------------------------ learners and inputs of one's own


class Own(MetricLearner):
    """A user's learner that knows nothing of this."""

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        return class_means(features, targets, way)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        return features @ predictor.T


class Blurring(Own):
    """It embeds something else than the episode that it is given."""

    def run(self, episodes: Episode, training: bool) -> Iterator[Any]:
        support, query = episodes
        shown = support.inputs * torch.linspace(0, 1, len(query.targets))[:, None, None, None, None]  # type: ignore[operator]
        yield from super().run(Episode(support._replace(inputs=shown), query), training)


class InContext(Own):
    """What it embeds depends on something that it has noted down."""

    def run(self, episodes: Episode, training: bool) -> Iterator[Any]:
        self.context = episodes.support.inputs.mean()  # type: ignore[union-attr]
        yield from super().run(episodes, training)

    def embed(self, inputs: Inputs) -> Tensor:
        return super().embed(inputs) * self.context


@pytest.mark.parametrize("kind", [Own, Blurring, InContext])
def test_learners_of_ones_own(kind: type[Own], counts: Counts) -> None:
    learner = kind(Conv4(1, 16, width=8), task=TASK).eval()
    batches = [episodes(4, torch.rand(60, 1, 16, 16), seed) for seed in range(3)]
    with held(learner):
        found = [learner.evaluate(batch).outputs for batch in batches]
    for outputs, batch in zip(found, batches, strict=True):
        plain = learner.evaluate(batch).outputs
        torch.testing.assert_close(outputs, plain, rtol=1e-5, atol=1e-5)
    assert counts.embedded < counts.asked  # at least where an episode's are asked for twice


def test_inputs_that_a_benchmark_changes_each_time_are_others(counts: Counts) -> None:
    class Jittered(TinyImages):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            batch = super().on_after_batch_transfer(batch, dataloader_idx)
            return batch.map(lambda part: part._replace(inputs=part.inputs + torch.rand(())))

    columns = []
    for memory in (512.0, 0.0):
        learner, _ = pair("PrototypicalNetwork")
        assert isinstance(learner, EmbedsOnce)
        learner.feature_memory = memory
        torch.manual_seed(0)
        benchmark = Jittered(way=3, shot=2, queries=3, test_episodes=4, eval_batch_size=1)
        columns.append(columns_of(learner, benchmark)["loss"])
    assert counts.embedded == counts.asked > 0
    torch.testing.assert_close(columns[0], columns[1], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ texts


def texts(number: int, width: int) -> dict[str, Tensor]:
    """Texts (n, L) of 1 to L words, no two alike."""
    lengths = torch.randint(1, width + 1, (number,))
    tokens = torch.randint(2, 50, (number, width))
    return {"tokens": tokens * (torch.arange(width) < lengths[:, None]), "lengths": lengths}


def of_texts(pool: dict[str, Tensor], width: int, seed: int) -> Episode:
    """Stacked episodes of those of the pool that are no longer than `width`, padded to it."""
    fit = (pool["lengths"] <= width).nonzero()[:, 0]
    torch.manual_seed(seed)
    rows = fit[torch.randint(len(fit), (2, 12))]
    inputs = {"tokens": pool["tokens"][rows][..., :width], "lengths": pool["lengths"][rows]}
    targets = (torch.arange(12) % 3).expand(2, -1)
    return Episode(
        Examples({name: value[:, :6] for name, value in inputs.items()}, targets[:, :6]),
        Examples({name: value[:, 6:] for name, value in inputs.items()}, targets[:, 6:]),
    )


@pytest.mark.parametrize("make", [TextCNN, BiLSTM])
def test_texts_are_known_again_whatever_they_are_padded_to(
    make: type[TextCNN | BiLSTM], counts: Counts
) -> None:
    torch.manual_seed(0)
    learner = PrototypicalNetwork(make(50, 8), task=TASK).double().eval()
    pool = texts(40, 30)
    batches = [of_texts(pool, 20 + seed, seed) for seed in range(10)]
    with held(learner):
        found = [learner.evaluate(batch).outputs for batch in batches]
    for outputs, batch in zip(found, batches, strict=True):
        torch.testing.assert_close(outputs, learner.evaluate(batch).outputs, rtol=1e-10, atol=1e-10)
    # the longest are read at what there are places for, each width by itself
    assert counts.embedded < 2 * 40 < counts.asked


class ReadsPadding(nn.Module):
    """A network on texts that is of a text and of what it is padded to."""

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.embedding(inputs["tokens"]).mean(1)
        return found


def test_a_network_that_reads_the_padding_embeds_as_ever() -> None:
    learner = PrototypicalNetwork(ReadsPadding(), task=TASK).double().eval()
    pool = texts(40, 30)
    batches = [of_texts(pool, 20 + seed, seed) for seed in range(10)]
    with held(learner):
        found = [learner.evaluate(batch).outputs for batch in batches]
    for outputs, batch in zip(found, batches, strict=True):
        torch.testing.assert_close(outputs, learner.evaluate(batch).outputs, rtol=1e-12, atol=1e-12)
