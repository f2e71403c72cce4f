"""A tiny BERT as a backbone: its tokenizer's ids, padding, checkpoints without the model folder."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import fewshot, fit, results
from fakes import fake_clinc150, fake_language_model
from slopes import assert_slope
from torch import Tensor

from fewshot.backbones import HuggingFaceEncoder
from fewshot.backbones.hugging_face_vision import own_preprocessing
from fewshot.cli.main import main
from fewshot.datamodules import CLINC150DataModule
from fewshot.datasets.reading import hub
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.engine.episode_map import loop_only
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import without_weights
from fewshot.learners import MAML, PrototypicalNetwork

IDS = 40
TASK = {"kind": "classification", "way": 2}


def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for make in (lambda: HuggingFaceEncoder(IDS, "any"), lambda: PretrainedTokenizer("any")):
        with pytest.raises(
            FewshotError,
            match=r"^transformers is not installed; pip install 'fewshot-lightning\[text\]'$",
        ):
            make()


def test_a_package_that_is_broken_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require("broken_package", "text")


def test_a_benchmark_without_its_tokenizer_is_an_error() -> None:
    with pytest.raises(
        FewshotError, match=r"ids of its own tokenizer; set data.tokenizer to bert-base-uncased$"
    ):
        HuggingFaceEncoder(IDS, None, "bert-base-uncased")


# ---------------------------------------------------------------- with transformers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    torch.manual_seed(0)
    return fake_language_model(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(fake_clinc150(tmp_path_factory.mktemp("clinc150")))


def texts(lengths: tuple[int, ...] = (1, 4, 6), places: int = 6) -> dict[str, Tensor]:
    tokens = torch.randint(
        5, IDS, (len(lengths), places), generator=torch.Generator().manual_seed(0)
    )
    return {
        "tokens": tokens * (torch.arange(places) < torch.tensor(lengths).unsqueeze(-1)),
        "lengths": torch.tensor(lengths),
    }


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_features_are_those_of_each_text_alone(folder: Path, pooling: Any) -> None:
    model = require("transformers", "text").AutoModel.from_pretrained(folder)
    network = HuggingFaceEncoder(IDS, str(folder), pooling=pooling)
    assert network.network.training, (
        "a pre-trained model comes in evaluation mode; dropout is part of training it"
    )
    network, model = network.double().eval(), model.double().eval()
    inputs = texts()
    features = network(inputs)
    assert features.shape == (3, network.out_features) == (3, 8)
    for row, length in enumerate(inputs["lengths"].tolist()):
        states = model(inputs["tokens"][row : row + 1, :length]).last_hidden_state[0]
        expected = states.mean(0) if pooling == "mean" else states[0]
        torch.testing.assert_close(features[row], expected, rtol=0, atol=1e-12)
    junk = inputs["tokens"].clone()
    junk[0, 1:] = 7  # the length tells where a text ends, whatever stands behind
    torch.testing.assert_close(network({**inputs, "tokens": junk}), features, rtol=0, atol=1e-12)


def test_every_parameter_has_a_gradient(folder: Path) -> None:
    network = HuggingFaceEncoder(IDS, str(folder))
    network(texts()).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_a_text_without_pieces_is_finite(folder: Path) -> None:
    assert HuggingFaceEncoder(IDS, str(folder))(texts((0, 3))).isfinite().all()


def test_it_adapts_by_second_order_maml(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    learner = MAML(
        HuggingFaceEncoder(IDS, "any", config=config), task=TASK, inner_steps=2, inner_lr=0.1
    ).double()
    inputs: Inputs = {
        name: torch.stack([value, value.flip(0)]) for name, value in texts((1, 4, 6, 3)).items()
    }
    batch = Episode(*(Examples(inputs, torch.arange(2).repeat(2, 2)) for _ in range(2)))
    assert loop_only(learner.backbone) == "HuggingFaceEncoder"
    parameters = [p for p in learner.parameters() if p.requires_grad]

    def loss() -> Tensor:
        return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    assert_slope(loss, parameters, 1e-5)


# ---------------------------------------------------------------- the tokenizer


def test_the_benchmark_gives_the_ids_of_the_tokenizer(folder: Path, root: str) -> None:
    module = CLINC150DataModule(root=root, tokenizer=str(folder), max_length=10)
    assert module.vocab_size == IDS
    train = module.datasets["train"]
    assert isinstance(train.inputs, dict)
    name = train.classes[0]
    tokenizer = require("transformers", "text").AutoTokenizer.from_pretrained(folder)
    expected = tokenizer(f"please a {name}")["input_ids"]
    assert train.inputs["tokens"][0][: train.inputs["lengths"][0]].tolist() == expected
    assert expected[0] == 2
    assert expected[-1] == 3
    assert (
        module.document_frequencies[2]
        == module.document_frequencies[3]
        == module.documents
        == 50 * 20
    )
    assert module.protocol()["tokenizer"] == str(folder)
    short = CLINC150DataModule(root=root, tokenizer=str(folder), max_length=4).datasets["train"]
    assert isinstance(short.inputs, dict)
    assert short.inputs["tokens"].shape[-1] == 4
    assert set(short.inputs["tokens"][:, 3].tolist()) == {3}, (
        "the end is marked where a text is cut, too"
    )


@pytest.mark.parametrize("argument", [{"terms": "ngrams"}, {"min_count": 2}, {"unknown_ids": 5}])
def test_arguments_of_our_own_vocabulary_are_refused_beside_a_tokenizer(
    argument: dict[str, Any], folder: Path, root: str
) -> None:
    module = CLINC150DataModule(root=root, tokenizer=str(folder), **argument)
    with pytest.raises(
        FewshotError,
        match=r"has a vocabulary of its own; leave out terms, min_count and unknown_ids$",
    ):
        _ = module.vocab_size


# ---------------------------------------------------------------- checkpoints and the command line


def test_a_checkpoint_needs_neither_the_folder_nor_a_network(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "model")
    learner = PrototypicalNetwork(HuggingFaceEncoder(IDS, str(moved)), task=TASK)
    trainer = L.Trainer(
        default_root_dir=tmp_path, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "learner.ckpt")
    shutil.rmtree(moved)
    loaded = PrototypicalNetwork.load_from_checkpoint(tmp_path / "learner.ckpt")
    inputs = texts()
    assert torch.equal(loaded.backbone.eval()(inputs), learner.backbone.eval()(inputs))


def test_weights_are_not_read_where_a_checkpoint_takes_their_place(
    folder: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(folder, tmp_path / "model")
    for file in bare.glob("model*"):
        file.unlink()
    with without_weights():
        assert HuggingFaceEncoder(IDS, str(bare)).out_features == 8
    with pytest.raises(FewshotError, match=r"^the model '.*' cannot be loaded"):
        HuggingFaceEncoder(IDS, str(bare))


def test_it_trains_and_tests_by_the_command_line(
    folder: Path, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data=CLINC150DataModule", f"--data.root={root}", "--data.queries=2"]
    options += ["--model=PrototypicalNetwork", "--model.backbone=HuggingFaceEncoder"]
    tokenizer = f"--data.tokenizer={folder}"
    run = fit(tmp_path / "fit", *options, tokenizer)
    again = fewshot(
        "test", tmp_path / "test", *options, tokenizer, f"--ckpt_path={run}/checkpoints/best.ckpt"
    )
    assert results(again)["metrics"] == results(run)["metrics"]
    capsys.readouterr()
    assert main(["fit", *options]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error == [
        "fewshot: error: HuggingFaceEncoder reads the ids of its own tokenizer; set data.tokenizer"
        " to the model"
    ]


# ---------------------------------------------------------------- errors


def test_a_model_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    missing = str(tmp_path / "missing")
    remedy = (
        r"cannot be loaded \(.*\); give a folder that holds its .*tokenizer.json.* and"
        r" model.safetensors, or a name of https://huggingface.co/models$"
    )
    with pytest.raises(FewshotError, match=rf"^the model '{missing}' {remedy}"):
        HuggingFaceEncoder(IDS, missing)
    with pytest.raises(FewshotError, match=rf"^the tokenizer '{missing}' {remedy}"):
        PretrainedTokenizer(missing)


def test_without_a_network_the_hub_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client would ask five times, with a line each."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(hub, "getproxies", dict)
    asked: list[tuple[str, bool]] = []

    def loaded(place: str, local_files_only: bool = False, **kwargs: Any) -> None:
        asked.append((place, local_files_only))
        raise OSError("not in the cache")

    for name in ("AutoConfig", "AutoTokenizer", "AutoImageProcessor"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", loaded)
    loads: dict[str, Callable[[], object]] = {
        "the tokenizer": lambda: PretrainedTokenizer("sentence-transformers/none"),
        "the model": lambda: HuggingFaceEncoder(IDS, "sentence-transformers/none"),
        "how the model": lambda: own_preprocessing("facebook/none"),
    }
    for known in (False, True):
        asked.clear()
        monkeypatch.setattr(socket, "getaddrinfo", _address if known else _no_address)
        for what, load in loads.items():
            with pytest.raises(FewshotError, match=rf"^{what} .*\(not in the cache\); "):
                load()
        assert {alone for _, alone in asked} == {not known}


def _address(*of: Any) -> list[Any]:
    return []


def _no_address(*of: Any) -> list[Any]:
    raise OSError("Name or service not known")


def test_a_tokenizer_of_another_model_is_an_error(folder: Path) -> None:
    with pytest.raises(
        FewshotError,
        match=r"the tokenizer other has 41 ids, the model .* knows 40; give both the same",
    ):
        HuggingFaceEncoder(IDS + 1, "other", str(folder))


def test_texts_longer_than_the_positions_are_an_error(folder: Path) -> None:
    with pytest.raises(
        FewshotError, match=r"a text has 25 pieces, the model takes 24; set data.max_length"
    ):
        HuggingFaceEncoder(IDS, str(folder))(texts((25,), 25))


def test_a_network_that_is_no_text_encoder_is_an_error(folder: Path) -> None:
    config = {
        "model_type": "t5",
        "d_model": 8,
        "d_ff": 8,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": IDS,
    }
    with pytest.raises(FewshotError, match=r"the model 'any' is no text encoder"):
        HuggingFaceEncoder(IDS, "any", config=config)
