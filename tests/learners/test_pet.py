"""PET and fine-tuning of language models: written-out scores, and what adaptation promises."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import fewshot, results
from fakes import fake_fewglue
from torch import Tensor

from fewshot.backbones import MLP, HuggingFaceEncoder, MaskedLanguageModel
from fewshot.cli.main import main
from fewshot.datamodules import FewGLUEDataModule
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import PET, FineTuneText
from fewshot.learners.transfer.language import NO_CANDIDATE, TextClassifier, batches
from fewshot.learners.transfer.pet import Ensemble, candidate_scores, hinge, one_pass_scores


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    torch.manual_seed(0)
    return fake_fewglue(tmp_path_factory.mktemp("fewglue") / "root")


def data(root: Path, subset: Any = "CB", **kwargs: Any) -> FewGLUEDataModule:
    return FewGLUEDataModule(str(root / "bert"), subset, str(root), max_length=64, **kwargs)


def network(root: Path) -> MaskedLanguageModel:
    module = data(root)
    return MaskedLanguageModel(module.vocab_size, module.tokenizer)


def episode(module: FewGLUEDataModule, number: int = 0) -> Episode:
    return module.stream("test")[number]


def naive_logs(model: MaskedLanguageModel, tokens: Tensor) -> Tensor:
    """Log-probabilities (L, pieces) of one sequence without padding."""
    logits: Tensor = model.network(input_ids=tokens[None]).logits
    return logits[0].log_softmax(-1)


def naive_candidate(
    model: MaskedLanguageModel, tokens: Tensor, place: int, answer: list[int]
) -> float:
    """One candidate in its own masks: each time the surest of its open pieces is filled in."""
    tokens, left, total = tokens.clone(), set(range(len(answer))), 0.0
    while left:
        logs = naive_logs(model, tokens)
        best = max(left, key=lambda i: float(logs[place + i, answer[i]]))
        total += float(logs[place + best, answer[best]])
        tokens[place + best] = answer[best]
        left.remove(best)
    return total


@pytest.mark.parametrize("subset", ["COPA", "CB", "WiC", "ReCoRD"])
def test_scores_are_those_written_out(root: Path, subset: str) -> None:
    model = network(root).double().eval()
    inputs = data(root, subset).part("val").inputs
    assert isinstance(inputs, dict)
    view, own_sequences = (1 if subset == "ReCoRD" else 2), subset in ("COPA", "ReCoRD")
    with torch.no_grad():
        quick, exact = one_pass_scores(model, inputs, view), candidate_scores(model, inputs, view)
        for row in range(len(exact)):
            answers = [[int(i) for i in a if i >= 0] for a in inputs["answers"][row, view]]
            longest = (
                max(range(len(answers)), key=lambda c: len(answers[c])) if own_sequences else 0
            )
            for c, answer in enumerate(answers):
                if not answer:  # ReCoRD's questions have three candidates or four
                    assert float(exact[row, c]) == float(quick[row, c]) == NO_CANDIDATE
                    continue
                for own, scores, reference in (
                    (c if own_sequences else 0, exact, naive_candidate),
                    (longest, quick, naive_one_pass),
                ):
                    tokens = inputs["tokens"][row, view, own, : inputs["lengths"][row, view, own]]
                    expected = reference(
                        model, tokens, int(inputs["places"][row, view, own]), answer
                    )
                    assert float(scores[row, c]) == pytest.approx(expected, rel=1e-9)


def naive_one_pass(
    model: MaskedLanguageModel, tokens: Tensor, place: int, answer: list[int]
) -> float:
    """The candidate's pieces in one pass, however many masks there are."""
    logs = naive_logs(model, tokens)
    return sum(float(logs[place + i, piece]) for i, piece in enumerate(answer))


def test_hinge() -> None:
    scores, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    total = 0.0
    for s, y in zip(scores.tolist(), labels.tolist(), strict=True):
        total += sum(max(0.0, 1 - s[y] + s[other]) for other in range(3) if other != y)
    assert float(hinge(scores, labels)) == pytest.approx(total / 5, rel=1e-12)


def test_batches_take_every_example_once_a_pass() -> None:
    torch.manual_seed(0)
    rows = list(batches(6, 3, 4))
    assert [sorted(torch.cat(rows[i : i + 2]).tolist()) for i in (0, 2)] == [list(range(6))] * 2
    assert [len(row) for row in batches(3, 8, 2)] == [3, 3]


def learner(
    kind: type[PET | FineTuneText], root: Path, module: FewGLUEDataModule, **kwargs: Any
) -> PET | FineTuneText:
    torch.manual_seed(1)
    return kind(network(root), task=module.task, **kwargs)


CASES = [
    (FineTuneText, {}),
    (PET, {"distil": False}),
    (PET, {"distil_steps": 2, "weighting": "accuracy"}),
]


@pytest.mark.parametrize(("kind", "arguments"), CASES)
@pytest.mark.parametrize("subset", ["CB", "COPA", "ReCoRD"])
def test_adaptation_is_a_function_of_the_support(
    root: Path, subset: str, kind: Any, arguments: dict[str, Any]
) -> None:
    module = data(root, subset)
    own = learner(
        kind,
        root,
        module,
        steps=3,
        lr=0.01,
        **{"distil_steps": 2, **arguments} if kind is PET else arguments,
    )
    before = {name: value.clone() for name, value in own.state_dict().items()}
    one, other = episode(module), episode(module, 1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = own.predict(own.adapt(one.support), one.query.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(own.predict(own.adapt(one.support), one.query.inputs), first)
    assert not torch.equal(own.predict(own.adapt(other.support), other.query.inputs), first)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert first.shape == (7, {"CB": 3, "COPA": 2, "ReCoRD": 4}[subset])


@pytest.mark.parametrize("models", [1, 3])
def test_an_ensemble_is_the_weighted_mean_of_its_patterns(root: Path, models: int) -> None:
    module = data(root, unlabeled=0)
    own = learner(
        PET, root, module, steps=2, batch=4, distil=False, weighting="accuracy", models_per_pattern=models
    )  # fmt: skip
    support = episode(module).support
    assert isinstance(support.inputs, dict)
    ensemble = own.adapt(support)
    assert isinstance(ensemble, Ensemble)
    start = own.backbone.eval()
    with torch.no_grad():
        untrained = torch.stack(
            [candidate_scores(start, support.inputs, view) for view in range(1, 5)]  # type: ignore[arg-type]
        )
        right = (untrained.argmax(-1) == own.task.labels(support.targets)).float().mean(-1)
        shares = right.repeat_interleave(models) / (models * right.sum())
        torch.testing.assert_close(ensemble.weights, shares)
        read = [v for v in range(1, 5) for _ in range(models)]
        each = [
            candidate_scores(m.eval(), support.inputs, v)
            for v, m in zip(read, ensemble.models, strict=True)
        ]
        assert all(not torch.equal(a, b) for a, b in pairwise(each))  # of a pattern too
    assert isinstance(own, PET)
    expected = sum(w * s for w, s in zip(ensemble.weights, each, strict=True))
    torch.testing.assert_close(own.predict(ensemble, support.inputs), expected)


@pytest.mark.parametrize("both", [False, True])
def test_what_a_classifier_is_taught_by(
    root: Path, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = data(root, shot=8)
    own = learner(PET, root, module, steps=1, temperature=2.0, soften_classifier=both)
    assert isinstance(own, PET)
    support = episode(module).support
    assert isinstance(support.inputs, dict)
    unlabelled = {name: value[support.targets < 0] for name, value in support.inputs.items()}
    logits = 3 * torch.randn(len(unlabelled["tokens"]), 3, dtype=torch.float64)
    rows, found = torch.tensor([0, 2, 3]), []

    def descend(model: Any, loss: Any, examples: int, steps: int) -> None:
        """In the place of training: the loss of some rows and its gradient, in float64."""
        model.double().eval()
        weights = [model.head.weight, model.head.bias]
        for_rows = {name: value[rows] for name, value in unlabelled.items()}
        said, target = model(for_rows), (logits[rows] / 2).softmax(1)
        if both:  # the authors' distillation loss
            expected = F.kl_div((said / 2).log_softmax(1), target, reduction="sum") * 4 / 3
        else:
            expected = F.kl_div(said.log_softmax(1), target, reduction="sum") / 3
        for one, two in zip(
            *(torch.autograd.grad(value, weights) for value in (loss(rows), expected)), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
            found.append(one.abs().max() > 1e-6)

    monkeypatch.setattr(own, "predict", lambda ensemble, inputs: logits)
    monkeypatch.setattr(own, "descend", descend)
    own._distilled(Ensemble([], torch.empty(0)), unlabelled)
    assert len(found) == 2
    assert all(found)


@pytest.mark.parametrize("every", [True, False])
def test_biases_and_norms_may_be_left_out_of_the_decay(root: Path, every: bool) -> None:
    own = learner(PET, root, data(root), lr=0.1, weight_decay=0.5, decay_vectors=every)
    model = network(root).double()
    for parameter in model.parameters():
        parameter.data += 0.1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # without a gradient the decay alone moves a weight
    nothing = lambda rows: 0.0 * torch.stack([p.sum() for p in model.parameters()]).sum()  # noqa: E731
    own.descend(model, nothing, 4, 1)
    spared = set()
    for name, p in model.named_parameters():
        left_out = not every and ("bias" in name or "LayerNorm.weight" in name)  # the authors' rule
        torch.testing.assert_close(p.detach(), before[name] * (1.0 if left_out else 1 - 0.1 * 0.5))
        spared |= {name} if left_out else set()
    assert bool(spared) != every


def test_copa_mirrored(root: Path) -> None:
    plain, both = data(root, "COPA", shot=4), data(root, "COPA", shot=4, mirrored=True)
    for part in ("train", "unlabeled", "val"):
        one, two = plain.part(part), both.part(part)
        assert isinstance(one.inputs, dict)
        assert isinstance(two.inputs, dict)
        n = len(one.targets)
        if part == "val":
            assert torch.equal(one.targets, two.targets)
            continue
        assert len(two.targets) == 2 * n
        labels = two.targets if part == "unlabeled" else two.targets % 2
        expected = -torch.ones(n) if part == "unlabeled" else 1 - labels[:n]
        assert labels[n:].tolist() == expected.tolist()
        answers = two.inputs["answers"]
        assert torch.equal(answers[n:], answers[:n].flip(2))
        # the first pattern names the choices in their order
        assert not torch.equal(two.inputs["tokens"][n:, 1], two.inputs["tokens"][:n, 1].flip(1))
    targets = episode(both).support.targets
    assert int((targets >= 0).sum()) == 8
    assert len((targets[targets >= 0] // 2).unique()) == 4  # type: ignore[no-untyped-call]
    with pytest.raises(FewshotError, match="mirrored exchanges the two choices of COPA, which CB"):
        data(root, "CB", mirrored=True)
    with pytest.raises(FewshotError, match="published_patterns has none for WSC"):
        data(root, "WSC", published_patterns=True)
    assert both.protocol()["mirrored"]


def test_a_classifier_learns_the_ensembles_soft_labels(root: Path) -> None:
    module = data(root, shot=8)
    own = learner(PET, root, module, steps=20, lr=0.02, batch=8, distil_steps=100, temperature=2.0)
    support = episode(module).support
    taught = own.adapt(support)
    assert isinstance(taught, TextClassifier)
    assert isinstance(support.inputs, dict)
    own.distil = False
    unlabelled = {name: value[support.targets < 0] for name, value in support.inputs.items()}
    # the same ensemble: it is trained first
    soft = (own.predict(own.adapt(support), unlabelled) / 2).softmax(-1)
    learned = own.predict(taught, unlabelled).softmax(-1)
    assert float(F.kl_div(learned.log(), soft, reduction="batchmean")) < 0.02
    assert float((soft - 1 / 3).abs().max()) > 0.1  # there was something to learn


@pytest.mark.parametrize(("kind", "arguments"), [(FineTuneText, {}), (PET, {"distil": False})])
@pytest.mark.parametrize("subset", ["RTE", "MultiRC", "ReCoRD"])
def test_the_support_is_learned(
    root: Path, subset: str, kind: Any, arguments: dict[str, Any]
) -> None:
    module = data(root, subset, unlabeled=0, shot=4)
    own = learner(kind, root, module, steps=80, lr=0.03, batch=12, **arguments)
    support = episode(module).support
    outputs = own.predict(own.adapt(support), support.inputs)
    assert own.task.metrics(outputs, support.targets)["accuracy"] > 0.9


def test_support_and_query_of_an_episode(root: Path) -> None:
    module = data(root, "MultiRC", shot=4, unlabeled=5)
    one, again, other = episode(module), episode(module), episode(module, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(one.support.targets, again.support.targets, strict=True)
    )
    labelled = one.support.targets[one.support.targets >= 0]
    assert len(labelled) == 12
    assert len((labelled // 2).unique()) == 4  # type: ignore[no-untyped-call]
    assert int((one.support.targets == -1).sum()) == 5
    assert not torch.equal(one.support.targets, other.support.targets)
    assert torch.equal(one.query.targets, other.query.targets)
    assert len(one.query.targets) == 21


def test_three_seeds_from_the_command_line(root: Path, tmp_path: Path) -> None:
    options = [
        "--data=FewGLUEDataModule",
        f"--data.root={root}",
        f"--data.tokenizer={root / 'bert'}",
    ]
    options += [
        "--model.steps=2",
        "--model.backbone=MaskedLanguageModel",
        "--data.subset=MultiRC",
        "--data.unlabeled=0",
    ]
    run = fewshot("test", tmp_path, "--model=FineTuneText", *options)
    content = results(run)
    assert (content["benchmark"], content["split"], content["queries"]) == (
        "FewGLUE",
        "MultiRC",
        21,
    )
    assert {"accuracy", "f1a", "em", "loss"} == set(content["metrics"])
    with (run / "episodes.csv").open() as file:
        values = torch.tensor([float(row["loss"]) for row in csv.DictReader(file)])
    assert len(values.unique()) == 3  # type: ignore[no-untyped-call]
    assert content["metrics"]["loss"]["mean"] == pytest.approx(float(values.mean()), rel=1e-6)
    assert content["metrics"]["loss"]["std"] == pytest.approx(float(values.std()), rel=1e-6)
    by_class = content["by_class"]  # each seed judges all queries
    assert {name: of["episodes"] for name, of in by_class.items()} == {"0": 3, "1": 3}
    assert sum(of["queries"] for of in by_class.values()) == 3 * 21
    right = sum(of["accuracy"] * of["queries"] for of in by_class.values())
    assert right / 63 == pytest.approx(content["metrics"]["accuracy"]["mean"])
    assert (run / "confusion.csv").is_file()
    assert (run / "confusion.png").is_file()


@pytest.mark.parametrize(
    ("subset", "names"),
    [
        ("CB", ("entailment", "contradiction", "neutral")),
        ("WiC", ("False", "True")),
        ("COPA", None),  # an example brings its own choices
    ],
)
def test_labels_are_classes_with_names(
    root: Path, subset: str, names: tuple[str, ...] | None
) -> None:
    found = data(root, subset).class_names("test", [0, 1])
    assert found == (None if names is None else {0: names, 1: names})


def test_refusals(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = data(root, unlabeled=0)
    support = episode(module).support
    with pytest.raises(
        FewshotError,
        match=r"^PET distils on unlabelled examples, of which there are none; set model",
    ):
        learner(PET, root, module).adapt(support)
    with pytest.raises(FewshotError, match=r"^the support holds no labelled example"):
        learner(FineTuneText, root, module).adapt(
            support._replace(targets=torch.full_like(support.targets, -1))
        )
    with pytest.raises(
        FewshotError, match=r"^the inputs are no texts by patterns; choose FewGLUEDataModule"
    ):
        learner(FineTuneText, root, module).adapt(Examples(torch.zeros(2, 3), torch.zeros(2)))
    with pytest.raises(
        FewshotError, match=r"^HuggingFaceEncoder fills in no masks; choose MaskedLanguageModel$"
    ):
        PET(HuggingFaceEncoder(module.vocab_size, module.tokenizer), task=module.task)
    with pytest.raises(
        FewshotError, match=r"^FineTuneText classifies by a language model; give it"
    ):
        FineTuneText(MLP(1), task=module.task)
    for name, value in (
        ("steps", 0),
        ("batch", 0),
        ("lr", -1.0),
        ("distil_steps", 0),
        ("temperature", 0.0),
        ("models_per_pattern", 0),
    ):
        with pytest.raises(FewshotError, match=rf"\b{name} is {value}|{name} {value}"):
            learner(PET, root, module, **{name: value})
    with pytest.raises(
        FewshotError, match=r"^shot is 33, but CB has 32 training examples; lower shot$"
    ):
        data(root, shot=33).tasks("test")
    with pytest.raises(FewshotError, match=r"^unlabeled is 7, but CB has 6; leave it out for all$"):
        data(root, unlabeled=7).tasks("test")
    options = [
        "--data=FewGLUEDataModule",
        f"--data.root={root}",
        f"--data.tokenizer={root / 'bert'}",
    ]
    options += [f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    with pytest.raises(FewshotError, match=r"^PET learns each task when it is tested; use `few"):
        learner(PET, root, module).configure_optimizers()
    capsys.readouterr()
    other = ["--model=MAML", "--model.backbone=HuggingFaceEncoder"]
    assert main(["test", *options, *other]) == 2
    assert "MAML does not read FewGLUE's patterns" in capsys.readouterr().err
