"""A trained learner on own data: it says what its evaluation says and reads as in training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_clinc150, fake_image_folder, fake_language_model
from PIL import Image
from torch import Tensor

import fewshot
from fewshot import Conv4, Examples, FewshotError, MetaLearner
from fewshot.cli.catalogue import learners
from fewshot.datamodules import CLINC150DataModule, ImageFolderDataModule, OmniglotDataModule
from fewshot.datasets.omniglot import _decode
from fewshot.datasets.preprocessing import (
    ImagePreprocessing,
    TextPreprocessing,
    as_float,
    make_preprocessing,
)
from fewshot.datasets.reading.decoding import Encoded
from fewshot.deployment.predictor import Predictor, TrainedLearner
from fewshot.deployment.queries import read_queries
from fewshot.episodes.class_dataset import LazyInputs
from fewshot.episodes.types import Episode, map_tensors
from fewshot.tasks import Classification

WAY, SHOT, SIZE = 3, 2, 16
EXTRA = {
    "train_classes": 4,
    "shot": SHOT,
    "num_context": 3,
    "film_after": "blocks.1.2",
    "slots": 8,
    "hidden": 8,
}
OWN: dict[str, dict[str, Any]] = {"MRMAML": {"hidden": [8]}}
RANKING = ("GMatching", "MetaR", "TailFrequency", "TransE")
LANGUAGE = ("BERTPair", "FineTuneText", "PET")
OTHERS = (*LANGUAGE, *RANKING)
"""No classifiers, or of language models."""
CLASSIFIERS = [
    e.name
    for e in learners()
    if e.name not in OTHERS and getattr(fewshot, e.name).takes in (None, Classification)
]


def build(name: str, **kwargs: Any) -> MetaLearner:
    """A tiny untrained learner of 3 classes, with running averages that are no batch's."""
    cls = getattr(fewshot, name)
    asked = {
        key: value
        for key, value in EXTRA.items()
        if key in fewshot.hyperparameters.parameter_names(cls)
    }
    torch.manual_seed(0)
    learner: MetaLearner = cls(
        Conv4(1, SIZE, width=4),
        task={"kind": "classification", "way": WAY},
        **asked | OWN.get(name, {}) | kwargs,
    )
    for module in learner.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if isinstance(learner, fewshot.SimpleShot):
        learner.set_center([images(9, seed=2)])
    return learner.eval()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- what it says


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_probabilities_are_those_of_the_evaluation(name: str) -> None:
    learner = build(name, batchnorm="inductive")
    support = Examples(images(WAY * SHOT), torch.arange(WAY).repeat_interleave(SHOT))
    query = images(5, seed=1)
    episode = Episode(support, Examples(query, torch.zeros(5, dtype=torch.int64)))
    if name == "SiameseNetwork":  # its metrics are of pairs, of which each kind is needed
        episode = episode._replace(query=Examples(query, torch.tensor([0, 1, 2, 0, 1])))
    expected = (
        learner.evaluate(map_tensors(lambda tensor: tensor[None], episode)).outputs[0].softmax(-1)
    )
    predictor = TrainedLearner(learner).adapt(support)
    found = predictor(query)
    assert (found.probabilities - expected).abs().max() < 1e-5
    assert found.names == [str(label) for label in expected.argmax(-1).tolist()]
    assert found.probabilities.sum(-1).tolist() == pytest.approx([1.0] * 5)
    if learner.facts().get("transductive"):
        return
    for i in range(5):  # every query is judged by itself
        assert (
            predictor(query[i : i + 1]).probabilities[0] - found.probabilities[i]
        ).abs().max() < 1e-5


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if not getattr(fewshot, n).fixed_way])
def test_any_way_and_unequal_shots(name: str) -> None:
    support = {
        "b": images(1),
        "a": images(3, seed=1),
        "d": images(2, seed=2),
        "c": images(4, seed=3),
    }
    found = TrainedLearner(build(name)).adapt(support)(images(70, seed=4))  # more than a chunk
    assert found.classes == ("b", "a", "d", "c")
    assert found.probabilities.shape == (70, 4)
    assert len(found) == 70


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if getattr(fewshot, n).fixed_way])
def test_a_learner_of_one_way_says_so(name: str) -> None:
    learner = TrainedLearner(build(name))
    with pytest.raises(
        FewshotError, match=f"this {name} can tell 3 classes apart.* support has 2; give 3"
    ):
        learner.adapt({"a": images(2), "b": images(2)})


def test_batch_normalisation_is_inductive_in_use() -> None:
    learner = build("MAML")
    assert learner.batchnorm == "transductive"
    assert TrainedLearner(learner).module.batchnorm == "inductive"


def test_bytes_are_images_in_0_to_1() -> None:
    predictor = TrainedLearner(build("PrototypicalNetwork")).adapt(
        {"a": images(1), "b": images(1, seed=1)}
    )
    pixels = torch.randint(0, 256, (4, 1, SIZE, SIZE), dtype=torch.uint8)
    assert torch.equal(
        predictor(pixels).probabilities, predictor(pixels.float() / 255).probabilities
    )


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ({"a": images(2)}, "the class a alone; give at least 2"),
        ({}, "the support has no classes"),
        (
            {"a": "a.png", "b": "b.png"},
            "a class of the support is one file or text; give each a list",
        ),
        ({"a": images(2), "b": images(0)}, "of the support 'b' has no example"),
        ({"a": images(2), "b": ["x.png"]}, "give a tensor for each class"),
        (
            Examples(images(2), torch.tensor([0, 2])),
            r"labels are \[0, 2\]; number the classes 0, 1",
        ),
        ({"a": ["x.png"], "b": ["y.png"]}, "does not say how inputs are made of files"),
        ("folder", "does not say how inputs are made of files"),
        (
            {"a": torch.rand(1, 1, 8, 8), "b": torch.rand(1, 1, 8, 8)},
            r"Conv4 was built for images \(1, 16, 16\)",
        ),
    ],
)
def test_a_support_that_cannot_be_taken(support: Any, message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        TrainedLearner(build("PrototypicalNetwork")).adapt(support)


def test_queries_that_cannot_be_judged() -> None:
    predictor = TrainedLearner(build("PrototypicalNetwork")).adapt(
        {"a": images(1), "b": images(1, seed=1)}
    )
    with pytest.raises(FewshotError, match="there is no query"):
        predictor(images(0))
    query = images(3)
    query[1] = torch.nan
    with pytest.raises(
        FewshotError, match="outputs for 1 of 3 queries are not finite, first for number 1"
    ):
        predictor(query)


def test_regression_is_refused() -> None:
    learner = fewshot.MAML(fewshot.MLP(1), task={"kind": "regression"})
    with pytest.raises(
        FewshotError, match="this MAML was trained on regression, and only classes can be named"
    ):
        TrainedLearner(learner)


# ---------------------------------------------------------------------- files are read as in traini


@pytest.mark.parametrize(("channels", "size"), [(3, 12), (1, 9)])
def test_image_files_become_what_training_saw(channels: Any, size: int, tmp_path: Path) -> None:
    root = fake_image_folder(tmp_path, classes=2, images=3)
    data = ImageFolderDataModule(str(root), size, channels, way=2, queries=1)
    assert data.preprocessing is not None
    read = make_preprocessing(data.preprocessing)
    by_class = read.support(root / "test")
    assert list(by_class) == list(data.datasets["test"].classes)
    stored = data.datasets["test"].inputs
    assert isinstance(stored, LazyInputs)
    made = read([path for paths in by_class.values() for path in paths])
    assert isinstance(made, Tensor)
    assert torch.equal(made, as_float(stored.take(np.arange(len(stored)))))
    opened = [Image.open(path) for path in by_class["e"]]
    again = read(opened)
    assert isinstance(again, Tensor)
    assert torch.equal(again, made[3 * list(by_class).index("e") :][:3]), (
        "opened images are as good as files"
    )


def test_drawings_become_what_training_saw(tmp_path: Path) -> None:
    ink = np.random.default_rng(0).random((105, 105)) < 0.1
    path = tmp_path / "drawing.png"
    Image.fromarray(~ink).save(path)  # 1 bit, ink dark, as Omniglot's files are
    expected = (
        torch.from_numpy(_decode(Encoded(path.read_bytes(), "drawing.png")).copy()).float() / 255
    )
    facts = OmniglotDataModule(root=str(tmp_path)).preprocessing
    assert facts is not None
    read = make_preprocessing(facts)
    made = read([path])
    assert isinstance(made, Tensor)
    assert (made[0, 0] - expected).abs().max() < 1e-6
    assert 0.05 < made.mean() < 0.2, "ink is bright"


def test_images_are_normalised_where_training_did(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 51)).save(tmp_path / "0.png")
    read = ImagePreprocessing(2, 3, mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.1])
    assert make_preprocessing(read.facts()) == read
    assert read([tmp_path / "0.png"])[0, :, 0, 0].tolist() == pytest.approx([1, -2, -3])


@pytest.mark.parametrize(
    "options", [{}, {"terms": "ngrams"}, {"unknown_ids": 3, "min_count": 20}, {"max_length": 2}]
)
def test_texts_become_what_training_saw(options: dict[str, Any], tmp_path: Path) -> None:
    data = CLINC150DataModule(root=str(fake_clinc150(tmp_path)), **options)
    check_texts(data)


def test_a_tokenizer_travels_in_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = fake_language_model(tmp_path / "model")
    data = CLINC150DataModule(
        root=str(fake_clinc150(tmp_path / "data")), tokenizer=str(model), max_length=8
    )
    facts = data.preprocessing
    _ = data.datasets
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    assert facts is not None
    assert facts["tokenizer_json"]
    check_texts(data)


def check_texts(data: CLINC150DataModule) -> None:
    """The intent k of the fake data has the texts ``please <letter> intent_k``; read them anew."""
    letters = "abcdefghijklmnopxyzw"
    assert data.preprocessing is not None
    dataset, read = data.datasets["test"], make_preprocessing(data.preprocessing)
    assert isinstance(dataset.inputs, dict)
    texts = [f"please {letter} {name}" for name in dataset.classes for letter in letters]
    made = read(texts)
    assert isinstance(made, dict)
    assert torch.equal(made["lengths"], dataset.inputs["lengths"])
    assert torch.equal(made["tokens"], dataset.inputs["tokens"][:, : made["tokens"].shape[1]])


def test_text_files(tmp_path: Path) -> None:
    read = TextPreprocessing("words", 5, ("<padding>", "<unknown>", "hello", "there"))
    (tmp_path / "greet.txt").write_text("hello there\n\n  hello \n", encoding="utf-8-sig")
    (tmp_path / "bye").mkdir()
    (tmp_path / "bye/1.txt").write_text("see you")
    (tmp_path / "bye/2.txt").write_text("bye")
    (tmp_path / "notes.md").write_text("no class")
    assert read.support(tmp_path) == {"bye": ["see you", "bye"], "greet": ["hello there", "hello"]}
    assert read.query(tmp_path / "greet.txt") == ["hello there", "hello"]
    assert read.query("hello") == ["hello"]
    assert read(["hello there", "you"])["tokens"].tolist() == [[2, 3], [1, 0]]
    with pytest.raises(FewshotError, match=r"the text '\?!' has no word"):
        read(["?!"])
    (tmp_path / "bye.txt").write_text("bye")
    with pytest.raises(FewshotError, match=r"has both bye\.txt and a folder bye"):
        read.support(tmp_path)
    (tmp_path / "bye.txt").unlink()
    (tmp_path / "greet.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(FewshotError, match=r"greet\.txt line 1 is no text in UTF-8"):
        read.support(tmp_path)
    # a query that is no text costs its own row alone
    (tmp_path / "query.txt").write_bytes(b"hello\n\xff\n")
    good, bad = read.query(tmp_path / "query.txt")
    assert good == "hello"
    with pytest.raises(FewshotError, match="is no text in UTF-8; leave it out"):
        read([bad])


def test_texts_of_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read = TextPreprocessing("words", 5, ("<padding>", "<unknown>", "hello", "there"))
    table = tmp_path / "texts.csv"
    table.write_text("intent,utterance\ngreet,hello\nbye,see you\ngreet,there\n")
    assert read.support(table) == {"bye": ["see you"], "greet": ["hello", "there"]}
    assert read.support(tmp_path) == read.support(table)  # the folder's only table
    assert read.query(table) == ["hello", "see you", "there"]
    query = tmp_path / "query.jsonl"
    query.write_text('{"text": "hello"}\n{"text": 5}\n')
    assert read.query(query) == ["hello"]
    assert read.labelled(query) == [("hello", "")]
    assert read.labelled(table) == [("hello", "greet"), ("see you", "bye"), ("there", "greet")]
    assert read_queries(read, table, ("greet", "x")).labels == ["greet", None, "greet"]
    assert "query.jsonl line 2 has something else than a text" in caplog.text
    assert "texts.csv: the texts are those of the column 'utterance'" in caplog.text
    table.write_text("a,b,c\n1,hello you,x\n")
    with pytest.raises(FewshotError, match="'a', 'b', 'c' none is called text and label"):
        read.support(table)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "sound"}, "preprocessing of kind 'sound' is unknown; use one of image, text"),
        ({"kind": "image", "size": 3}, r"the facts \['size'\] do not fit the kind 'image'"),
    ],
)
def test_facts_that_fit_nothing(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        make_preprocessing(facts)


# ---------------------------------------------------------------------- from a checkpoint


def test_three_lines(photos: tuple[Path, Path]) -> None:
    root, checkpoint = photos
    learner = fewshot.load(checkpoint)
    predictor = learner.adapt(root / "test")
    found = predictor(root / "test")
    assert found.classes == ("k", "l", "m", "n", "o")
    assert found.names == [name for name in "klmno" for _ in range(16)], (
        "classes have colours of their own"
    )
    assert not learner.module.training


def test_a_checkpoint_is_read_once(
    photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    read = torch.load

    def counted(path: Any, **kwargs: Any) -> Any:
        reads.append(path)
        return read(path, **kwargs)

    monkeypatch.setattr(torch, "load", counted)
    loaded = fewshot.load(photos[1]).module
    assert reads == [photos[1]]
    again = type(loaded).load_from_checkpoint(photos[1])
    assert len(reads) == 2
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), again.parameters(), strict=True)
    )


def test_a_checkpoint_is_saved_again_with_what_it_says(
    photos: tuple[Path, Path], tmp_path: Path
) -> None:
    import lightning as L

    learner = fewshot.load(photos[1]).module
    trainer = L.Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    reader = fewshot.load(tmp_path / "again.ckpt").reader
    assert isinstance(reader, ImagePreprocessing)
    assert reader.image_size == 16


def test_an_old_checkpoint_is_told_how_inputs_are_made(
    photos: tuple[Path, Path], tmp_path: Path
) -> None:
    root, checkpoint = photos
    content = torch.load(checkpoint, weights_only=True)
    facts = content["fewshot"].pop("preprocessing")
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(FewshotError, match="does not say how inputs are made of files"):
        fewshot.load(tmp_path / "old.ckpt").adapt(root / "test")
    predictor = fewshot.load(tmp_path / "old.ckpt", preprocessing=facts).adapt(root / "test")
    assert isinstance(predictor, Predictor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("fewshot"), "was not written by fewshot"),
        (
            lambda content: content["fewshot"].update(learner="Protonet"),
            "holds a Protonet, .*did you mean '",
        ),
    ],
)
def test_checkpoints_of_others(
    change: Callable[[Any], Any], message: str, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    content = torch.load(photos[1], weights_only=True)
    change(content)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(FewshotError, match=message):
        fewshot.load(tmp_path / "other.ckpt")


def test_an_unknown_device(photos: tuple[Path, Path]) -> None:
    with pytest.raises(FewshotError, match="device 'gpux' cannot be used"):
        fewshot.load(photos[1], "gpux")


def test_the_task_is_of_the_kind_that_the_tests_mean() -> None:
    assert all(isinstance(build(name).task, Classification) for name in CLASSIFIERS)
