"""BERT-PAIR on a tiny BERT: the tokenizer's pairs, the paper's logits and gradients written out."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fit
from fakes import fake_clinc150, fake_fewrel, fake_language_model, fake_masked_language_model
from torch import Tensor

import fewshot
from fewshot import BERTPair, Conv4, FewRelDataModule, FewshotError, HuggingFaceEncoder, PairEncoder
from fewshot.backbones.pair_encoder import joined
from fewshot.cli.main import main
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.extras import require

IDS = 40
ENDS = ([2], [3], [3])
NOTA = {"kind": "classification", "way": 2, "nota": True}
TEXTS = ["please a", "b", "c d e f", "please intent_1", "g h", "i j k"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    torch.manual_seed(0)
    return fake_language_model(tmp_path_factory.mktemp("model") / "bert")


def encoded(lists: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    tokens = torch.zeros(len(lists), max(map(len, lists)), dtype=torch.long)
    for row, ids in enumerate(lists):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return {"tokens": tokens, "lengths": torch.tensor([len(ids) for ids in lists])}


def texts(folder: Path, chosen: Sequence[str]) -> dict[str, Tensor]:
    return encoded(
        require("transformers", "text").AutoTokenizer.from_pretrained(folder)(list(chosen))[
            "input_ids"
        ]
    )


def learner(folder: Path, task: dict[str, Any] = NOTA, **kwargs: Any) -> BERTPair:
    torch.manual_seed(1)
    return BERTPair(PairEncoder(IDS, str(folder)), task=task, **kwargs)


def an_episode(folder: Path) -> Episode:
    """Two classes, of two examples and one; three queries, one of them of neither class."""
    support = Examples(texts(folder, TEXTS[:3]), torch.tensor([1, 0, 1]))
    return Episode(support, Examples(texts(folder, TEXTS[3:]), torch.tensor([0, 2, 1])))


def batch(folder: Path) -> Episode:
    return map_tensors(lambda tensor: tensor[None], an_episode(folder))


# ---------------------------------------------------------------- pairs


def test_pairs_are_those_of_the_tokenizer(folder: Path) -> None:
    tokenizer = require("transformers", "text").AutoTokenizer.from_pretrained(folder)
    one, two = TEXTS[:3], TEXTS[3:]
    expected = tokenizer(one, two, padding=True, return_tensors="pt")
    known = PretrainedTokenizer(str(folder))
    assert (known.pair_ends, [len(end) for end in known.ends]) == (ENDS, [1, 1])
    tokens, lengths, second = joined(
        texts(folder, one), texts(folder, two), [1, 1], known.pair_ends
    )
    mask = expected["attention_mask"]
    assert torch.equal(tokens * mask, expected["input_ids"])
    assert torch.equal(lengths, mask.sum(1))
    assert torch.equal(second * mask, expected["token_type_ids"])


def test_pairs_of_other_tokenizers() -> None:
    ends = [[7], [8, 8], []]  # as RoBERTa's, without its last
    one, two = [[7, 1, 2, 8], [7, 8], [7, 3, 8]], [[7, 4, 8], [7, 5, 6, 8], [7, 8]]
    tokens, lengths, second = joined(encoded(one), encoded(two), [1, 1], ends)
    for row, (a, b) in enumerate(zip(one, two, strict=True)):
        expected = [7, *a[1:-1], 8, 8, *b[1:-1]]
        assert tokens[row, : lengths[row]].tolist() == expected
        assert second[row, : lengths[row]].tolist() == [0] * (len(a) + 1) + [1] * (len(b) - 2)


# ---------------------------------------------------------------- the algorithm


def written_out(own: BERTPair, one: Episode) -> Tensor:
    """The logits (n, N + 1) by the paper: a pair at a time, without padding."""
    network: Any = own.backbone.network
    rows = []
    assert isinstance(one.support.inputs, dict)
    assert isinstance(one.query.inputs, dict)
    for query, size in zip(one.query.inputs["tokens"], one.query.inputs["lengths"], strict=True):
        same: dict[int, list[Tensor]] = {}
        different: dict[int, list[Tensor]] = {}
        inputs, labels, _ = one.support
        assert isinstance(inputs, dict)
        for text, length, label in zip(
            inputs["tokens"], inputs["lengths"], labels.tolist(), strict=True
        ):
            # [CLS] support [SEP] query [SEP]
            ids = [*text[:length].tolist(), *query[1:size].tolist()]
            types = [0] * int(length) + [1] * int(size - 1)
            output: Any = network(
                input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])
            )
            scores = output.pooler_output[0] @ own.score.weight.T + own.score.bias
            same.setdefault(label, []).append(scores[0])
            different.setdefault(label, []).append(scores[1])
        means = [[torch.stack(kind[c]).mean() for c in sorted(kind)] for kind in (same, different)]
        rows.append(torch.stack([*means[0], min(means[1])]))
    return torch.stack(rows)


@pytest.mark.parametrize("pairs_per_chunk", [1, 4, 64])
@pytest.mark.parametrize("nota", [True, False])
def test_logits_and_gradients_are_those_written_out(
    folder: Path, nota: bool, pairs_per_chunk: int
) -> None:
    task = NOTA | {"nota": nota}
    own = learner(folder, task, pairs_per_chunk=pairs_per_chunk).double().eval()  # no dropout
    one = an_episode(folder)
    if not nota:
        one = one._replace(query=one.query._replace(targets=torch.tensor([0, 1, 1])))
    (outcome,) = own.run(map_tensors(lambda tensor: tensor[None], one), training=True)
    logits = written_out(own, one)
    expected = logits if nota else logits[:, :2]
    torch.testing.assert_close(outcome.outputs[0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        own.predict(own.adapt(one.support), one.query.inputs), expected, rtol=0, atol=1e-12
    )
    # none of the above counts in both
    loss = -logits.log_softmax(-1).gather(1, one.query.targets[:, None]).mean()
    torch.testing.assert_close(outcome.loss, loss[None], rtol=0, atol=1e-12)
    right = (expected.argmax(-1) == one.query.targets).double().mean()
    assert float(outcome.metrics["accuracy"]) == pytest.approx(float(right))
    weights = [weight for weight in own.parameters() if weight.requires_grad]
    gradients = [torch.autograd.grad(value, weights) for value in (outcome.loss.sum(), loss)]
    assert sum(float(gradient.abs().sum()) for gradient in gradients[0]) > 1e-3
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_order_of_support_classes_and_queries_does_not_matter(folder: Path) -> None:
    own, one = learner(folder).double().eval(), an_episode(folder)
    with torch.no_grad():
        logits = own.logits(*own.adapt(one.support), one.query.inputs)
        support, query = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])
        shuffled = Examples(
            map_tensors(lambda t: t[support], one.support.inputs), 1 - one.support.targets[support]
        )
        turned = own.logits(*own.adapt(shuffled), map_tensors(lambda t: t[query], one.query.inputs))
    torch.testing.assert_close(turned, logits[query][:, [1, 0, 2]], rtol=0, atol=1e-12)


def test_forgotten_activations_are_computed_again_with_the_same_dropout(folder: Path) -> None:
    own = learner(folder, pairs_per_chunk=2, dropout=0.5).double().train()
    weights = [weight for weight in own.parameters() if weight.requires_grad]
    step = 1e-5
    direction = [torch.randn_like(weight) for weight in weights]

    def loss() -> Tensor:
        torch.manual_seed(3)
        (outcome,) = own.run(batch(folder), training=True)
        return outcome.loss.sum()

    slope = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(loss(), weights), direction, strict=True)
    )
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, change in zip(weights, direction, strict=True):
                weight.add_(sign * step * change)
        ends.append(loss().detach())
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-4, atol=1e-8)


def test_no_pass_has_more_pairs_than_a_chunk(folder: Path) -> None:
    own = learner(folder, pairs_per_chunk=4).eval()
    network: Any = own.backbone.network
    sizes: list[int] = []
    network.register_forward_hook(
        lambda _, __, kwargs, ___: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    own.evaluate(batch(folder))
    assert sizes == [4, 4, 1]


def test_it_learns_relations_and_none_of_the_above(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = fake_masked_language_model(tmp_path / "bert")
    root = str(fake_fewrel(tmp_path / "data"))
    data = FewRelDataModule(
        val_relations=8, train="train_wiki_subset", test="val_wiki", root=root, tokenizer=str(model), way=3,
        queries=2, nota_rate=1, meta_batch_size=2,
    )  # fmt: skip
    torch.manual_seed(0)
    own = BERTPair(PairEncoder(data.vocab_size, data.tokenizer), task=data.task)
    one = next(iter(data.test_dataloader())).stacked
    outcome = own.eval().evaluate(one)
    assert outcome.outputs.shape[1:] == (3 * 2 + 2, 4)
    none = one.query.targets == 3
    found = outcome.outputs.argmax(-1) == one.query.targets
    torch.testing.assert_close(outcome.metrics["recall_none"], (found & none).sum(1) / none.sum(1))
    assert none.sum(1).tolist() == [2] * len(none)
    optimizer = torch.optim.Adam(own.parameters(), 1e-2)
    batch, losses = data.stream("train")[0], []
    for _ in range(40):
        (outcome,) = own.run(map_tensors(lambda tensor: tensor[None], batch), training=True)
        optimizer.zero_grad()
        torch.autograd.backward(outcome.loss.sum())
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


# ---------------------------------------------------------------- use


def test_a_checkpoint_is_loaded_and_used_without_the_model(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    options = [
        "--data=CLINC150DataModule",
        f"--data.root={fake_clinc150(tmp_path / 'data')}",
        "--data.queries=1",
    ]
    options += [
        f"--data.tokenizer={model}",
        "--data.max_length=8",
        "--data.way=2",
        "--data.meta_batch_size=2",
    ]
    run = fit(
        tmp_path,
        "--model=BERTPair",
        "--model.backbone=PairEncoder",
        *options,
        "--trainer.max_steps=1",
    )
    shutil.rmtree(model)
    path = run / "checkpoints/last.ckpt"
    trained = fewshot.load(path, "cpu")
    support = {"x": ["please a", "b"], "y": ["c d"], "z": ["intent_3"]}
    found = trained.adapt(support)(["please b", "c", "d e"])
    assert found.probabilities.shape == (3, 3)
    assert (
        found.probabilities[1:2] - trained.adapt(support)(["c"]).probabilities
    ).abs().max() < 1e-6
    (tmp_path / "support").mkdir()
    for name, lines in support.items():
        (tmp_path / f"support/{name}.txt").write_text("\n".join(lines))
    (tmp_path / "query.txt").write_text("please b\nc\n")
    given = [f"--ckpt_path={path}", f"--support={tmp_path}/support"]
    output = f"--output={tmp_path}/named.csv"
    assert main(["predict", *given, f"--query={tmp_path}/query.txt", output]) == 0
    assert len((tmp_path / "named.csv").read_text().splitlines()) == 3
    for chosen, message in (
        (given, "BERTPair cannot be exported"),
        (given[:1], "PairEncoder reads pairs of texts"),
    ):
        capsys.readouterr()
        assert main(["export", *chosen, "--format=pt2", f"--output={tmp_path}/named"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


# ---------------------------------------------------------------- errors


def test_refusals(folder: Path, tmp_path: Path) -> None:
    needs = (
        r"^BERTPair has a language model read two texts as one: it needs .* data.tokenizer .* the"
        r" backbone PairEncoder"
    )
    with pytest.raises(FewshotError, match=needs + ", not classification and Conv4$"):
        BERTPair(Conv4(1, 16, width=4), task=NOTA)
    with pytest.raises(FewshotError, match=needs + ", not classification and HuggingFaceEncoder$"):
        BERTPair(HuggingFaceEncoder(IDS, str(folder)), task=NOTA)
    with pytest.raises(FewshotError, match=r"^BERTPair is made for .*task is regression; choose"):
        learner(folder, {"kind": "regression"})
    with pytest.raises(FewshotError, match=r"^pairs_per_chunk is 0"):
        learner(folder, pairs_per_chunk=0)
    with pytest.raises(
        FewshotError, match=r"^PairEncoder reads pairs of texts, .*; choose HuggingFaceEncoder$"
    ):
        PairEncoder(IDS, str(folder))(texts(folder, TEXTS))
    long = {"tokens": torch.full((2, 14), 7), "lengths": torch.tensor([14, 13])}
    with pytest.raises(
        FewshotError,
        match=r"^two texts have 27 pieces, the model takes 24; set data.max_length to 12$",
    ):
        learner(folder).logits(Examples(long, torch.tensor([0, 1])), 2, long)
    with pytest.raises(
        FewshotError, match=r"^a text backbone reads a dict of 'tokens' and 'lengths', got a tensor"
    ):
        learner(folder).logits(
            Examples(torch.rand(2, 3), torch.tensor([0, 1])), 2, torch.rand(1, 3)
        )
    distil = require("transformers", "text").DistilBertConfig(
        vocab_size=IDS, dim=8, n_heads=2, n_layers=1, hidden_dim=8
    )
    config = {
        "config": distil.to_dict(),
        "single_ends": [1, 1],
        "pair_ends": [list(end) for end in ENDS],
    }
    with pytest.raises(FewshotError, match=r"^the model any has no pooler; set pooling to cls$"):
        PairEncoder(IDS, "any", **config)
    network = PairEncoder(IDS, "any", pooling="cls", **config)  # which is told of no types
    pairs = texts(folder, TEXTS)
    assert network(
        {**pairs, **{f"other_{name}": value for name, value in pairs.items()}}
    ).shape == (6, 8)
