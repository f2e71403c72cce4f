"""Meta-Dataset end to end on generated files of every source's own layout."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from commands import FEW, QUIET, fewshot, fit, results
from fake_meta_dataset import (
    IMAGES,
    WORDNET,
    class_names,
    counts,
    fake_meta_dataset,
    fake_sources,
    few_characters,
)
from PIL import Image

from fewshot.cli.main import main
from fewshot.datamodules import MetaDatasetDataModule
from fewshot.datasets.meta_dataset import DecodedImages, found_sources, load_source, omniglot_spec
from fewshot.datasets.meta_dataset_sources import SOURCES, find_images, scaled_box
from fewshot.datasets.meta_dataset_specs import read_spec, spanned
from fewshot.engine.augmentation import Augmentation
from fewshot.errors import FewshotError

MODEL = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4")
SMALL = ("--data=MetaDatasetDataModule", "--data.image_size=16")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sources but Omniglot."""
    return fake_sources(tmp_path_factory.mktemp("meta_dataset") / "root")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "meta_dataset"


@pytest.fixture
def damaged(root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a source's folder to spoil."""

    def copy(source: str) -> Path:
        shutil.copytree(root / "dataset_specs", tmp_path / "root" / "dataset_specs")
        folder = SOURCES[source].folder(root)
        assert folder is not None
        return Path(shutil.copytree(folder, tmp_path / "root" / folder.name))

    return copy


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"omniglot"}))
@pytest.mark.parametrize("packed", [True, False])
def test_each_source_in_its_own_layout(source: str, packed: bool, root: Path, store: Path) -> None:
    folder = found_sources(root, [source])[source]
    splits = load_source(
        source, folder, root / "dataset_specs", store if packed else None, image_size=8
    )
    classes = {name for split in splits.values() for name in split.dataset.classes}
    if source == "ilsvrc_2012":
        assert {split: len(of.dataset.classes) for split, of in splits.items()} == dict(
            zip(("train", "val", "test"), WORDNET.values(), strict=True)
        )
        assert all((of.dataset.counts == IMAGES).all() for of in splits.values())
    else:
        assert classes == set(class_names(source))
        found = {
            n: c
            for of in splits.values()
            for n, c in zip(of.dataset.classes, of.dataset.counts, strict=True)
        }
        assert found == counts(source)
    assert (store / f"{source}_3x8x8").is_dir() == (packed and source != "quickdraw")
    for split in splits.values():
        one = split.tasks().draw(np.random.default_rng(0))
        assert isinstance(one.support.inputs, torch.Tensor)
        assert one.support.inputs.shape[1:] == (3, 8, 8)
        assert one.support.inputs.dtype == torch.uint8
        way = int(one.support.targets.max()) + 1
        assert sorted(set(one.query.targets.tolist())) == list(range(way))


def test_packed_and_decoded_images_are_the_same(root: Path, store: Path) -> None:
    for source in ("aircraft", "mscoco"):
        folder = found_sources(root, [source])[source]
        drawn = [
            load_source(source, folder, root / "dataset_specs", place, image_size=8)["test"]
            .tasks()
            .draw(np.random.default_rng(3))
            .query.inputs
            for place in (store, None)
        ]
        assert torch.equal(*drawn)  # type: ignore[arg-type]  # tensors


def test_only_the_box_is_read(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b"
    spec = read_spec(root / "dataset_specs" / "aircraft_dataset_spec.json")
    split = load_source("aircraft", folder, root / "dataset_specs", None, image_size=6)["train"]
    assert isinstance(split.dataset.inputs, DecodedImages)
    first = split.dataset.inputs.take(np.array([0]))[0]
    name = next(iter(spec.images["train"]))
    cropped = find_images("aircraft", folder)[name][0]
    with Image.open(cropped.path) as image:  # type: ignore[union-attr]
        expected = np.asarray(
            image.convert("RGB").crop((2, 3, 20, 15)).resize((6, 6), Image.Resampling.BILINEAR)
        )
    assert (first.permute(1, 2, 0).numpy() == expected).all()


def test_cocos_boxes() -> None:
    # 20 % larger about the centre, whole pixels, inside of the image
    assert scaled_box([10, 20, 100, 50], (640, 480)) == (0, 14, 121, 75)
    assert scaled_box([600.0, 450.0, 40.0, 30.0], (640, 480)) == (596, 446, 640, 480)


def test_a_hierarchy() -> None:
    leaves = [f"leaf{i}" for i in range(7)]
    children = {
        "root": ["single", "left"],
        "single": ["right"],  # stands for its only child
        "right": leaves[3:] + leaves[:2],
        "left": leaves[:4],  # too few
        **{leaf: [] for leaf in leaves},
    }
    spans = [span.tolist() for span in spanned(children, leaves)]
    assert sorted(spans) == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 4, 5, 6]]


def test_omniglots_rule_is_the_published_specification(shared_data: Path) -> None:
    published = read_spec(
        shared_data / "splits/meta_dataset/dataset_specs/omniglot_dataset_spec.json"
    )
    found = omniglot_spec(list(find_images("omniglot", shared_data / "omniglot")))
    for split, groups in published.groups.items():
        names = list(published.images[split])
        assert dict(found.images[split]) == dict(published.images[split])
        ours = list(found.images[split])
        expected = {frozenset(names[i] for i in members) for members in groups.members}
        assert {
            frozenset(ours[i] for i in members) for members in found.groups[split].members
        } == expected


def test_fit_and_test_on_all_ten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_characters(monkeypatch)
    root = fake_meta_dataset(tmp_path / "root")
    run = fit(tmp_path, *MODEL, *SMALL, f"--data.root={root}", "--data.meta_batch_size=4")
    result = results(run)
    assert list(result["sources"]) == list(SOURCES)
    assert result["episodes"] == 30
    assert (result["way"], result["benchmark"]) == ("5 to 50", "Meta-Dataset")
    assert len(result["train_sources"]) == 8
    mean = np.mean([of["accuracy"]["mean"] for of in result["sources"].values()])
    assert result["metrics"]["accuracy"]["mean"] == pytest.approx(mean)
    out = capsys.readouterr().out
    assert all(f"accuracy on {name}" in out for name in SOURCES)
    columns = [line.split(",") for line in (run / "episodes.csv").read_text().splitlines()]
    accuracy = [float(row[columns[0].index("accuracy")]) for row in columns[1:]]
    assert result["sources"]["dtd"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracy[4::10]))
    # ... and the results on one do not depend on the others
    alone = ("--data.sources=[dtd,fungi]", f"--ckpt_path={run / 'checkpoints/best.ckpt'}")
    again = results(fewshot("test", tmp_path, *MODEL, *SMALL, f"--data.root={root}", *alone))
    for name in ("dtd", "fungi"):
        assert again["sources"][name] == result["sources"][name]
    events = list(run.glob("events.out.tfevents.*"))
    assert any(b"accuracy/val on dtd" in path.read_bytes() for path in events)


def test_learners_without_episodes_take_one_source(root: Path, tmp_path: Path) -> None:
    options = (
        "--model=Baseline",
        "--model.backbone=Conv4",
        "--model.backbone.width=4",
        "--model.head_epochs=2",
    )
    data = (*SMALL, f"--data.root={root}", "--data.train_sources=[dtd]", "--data.batch_size=4")
    result = results(fit(tmp_path, *options, *data, "--data.sources=[dtd,mscoco]"))
    assert list(result["sources"]) == ["dtd", "mscoco"]
    with pytest.raises(FewshotError, match="take one source of Meta-Dataset; set train_sources"):
        MetaDatasetDataModule(str(root), image_size=8).examples()


def test_preparing_mends_the_store(root: Path, store: Path) -> None:
    data = MetaDatasetDataModule(str(root), sources=["dtd"], image_size=8)
    data.prepare()
    images = store / "dtd_3x8x8" / "images.u8"
    content = images.read_bytes()
    images.write_bytes(bytes(len(content)))
    MetaDatasetDataModule(str(root), sources=["dtd"], image_size=8).prepare()
    assert images.read_bytes() == content


def test_images_are_augmented_and_scaled(root: Path, tmp_path: Path) -> None:
    data = MetaDatasetDataModule(
        str(root),
        ["dtd", "mscoco"],
        image_size=8,
        normalize=True,
        augment=Augmentation(flip=True),
        meta_batch_size=4,
    )
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    data.trainer = trainer
    loader = data.train_dataloader()
    batch = next(iter(loader))
    trainer.training = True
    augmented = data.on_after_batch_transfer(batch, 0)
    again = data.on_after_batch_transfer(batch, 0)
    parts = zip(batch.parts, augmented.parts, again.parts, strict=True)
    for before, after, same in parts:
        plain = before.query.inputs / 127.5 - 1
        flipped = (after.query.inputs - plain.flip(-1)).abs().amax((0, 2, 3, 4)) < 1e-5
        kept = (after.query.inputs - plain).abs().amax((0, 2, 3, 4)) < 1e-5
        assert (flipped | kept).all()
        assert torch.equal(after.query.inputs, same.query.inputs)
    trainer.validating = True
    before, *_ = batch.parts
    plain = before.query.inputs / 127.5 - 1
    assert torch.allclose(
        data.on_after_batch_transfer(batch, 0).parts[0].query.inputs, plain, atol=1e-5
    )


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refused run leaves, it leaves in the test's own folder."""
    monkeypatch.chdir(tmp_path)


def refusal(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["fit", *MODEL, *SMALL, *options, *FEW, *QUIET, "--trainer.max_epochs=1"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in errors if "fewshot: error:" in line]) == 1
    assert errors[-1].startswith("fewshot: error:")
    return errors[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data.sources=[dtdd]",), "no source 'dtdd'; did you mean 'dtd'"),
        (
            ("--data.sources=[dtd,omniglot]",),
            r"holds no omniglot; expected .*omniglot: images_background.*MIT",
        ),
        (
            ("--data.train_sources=[mscoco]",),
            "names 'mscoco', which has no training classes; name some of ilsvrc",
        ),
        (
            ("--data.sources=[dtd]", "--data.train_sources=[fungi]"),
            "'fungi', which is not among the sources",
        ),
        (("--data.sources=[traffic_sign]",), "none of traffic_sign has training classes"),
        (
            ("--data.specs=/nowhere",),
            "there is no /nowhere/.*spec.json; get it from https://github.com/google-res",
        ),
    ],
)
def test_refusals(
    options: tuple[str, ...], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, refusal(capsys, f"--data.root={root}", *options))


def test_a_missing_root_says_where_everything_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, f"--data.root={tmp_path / 'none'}")
    for source in SOURCES.values():
        assert source.origin in error
        assert source.files in error


def spoil(folder: Path, path: str, content: str | bytes) -> None:
    place = folder / path
    place.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        (
            "dtd",
            lambda f: shutil.rmtree(f / "images" / "dtd 3"),
            "has 0 images of the class 'dtd 3', which .* 4",
        ),
        (
            "dtd",
            lambda f: next((f / "images" / "dtd 3").glob("*.jpg")).unlink(),
            "3 images .*verify: false accepts",
        ),
        (
            "dtd",
            lambda f: shutil.rmtree(f / "images"),
            "does not hold dtd .*expected images/<texture>.*research",
        ),
        (
            "cu_birds",
            lambda f: spoil(f, "images/003.Bird_3/00000.jpg", b""),
            "00000.jpg cannot be decoded .*0 bytes",
        ),
        (
            "aircraft",
            lambda f: spoil(f, "data/images_box.txt", "1 2\n"),
            "does not hold aircraft .*ValueError",
        ),
        (
            "aircraft",
            lambda f: spoil(f, "data/images_box.txt", ""),
            "does not hold aircraft .*KeyError",
        ),
        (
            "fungi",
            lambda f: (f / "val.json").unlink(),
            "does not hold fungi .*val.json.*expected train.json, val.json",
        ),
        (
            "quickdraw",
            lambda f: np.save(f / "quickdraw 1.npy", np.zeros((3, 5))),
            "does not hold quickdraw .*float64",
        ),
        (
            "dtd",
            lambda f: spoil(f, "../dataset_specs/dtd_dataset_spec.json", "{"),
            "dtd_dataset_spec.json is no specification of Meta-Dataset",
        ),
        (
            "dtd",
            lambda f: spoil(
                f,
                "../dataset_specs/dtd_dataset_spec.json",
                (f / "../dataset_specs/dtd_dataset_spec.json")
                .read_text()
                .replace('"dtd 1"', '"unknown"'),
            ),
            "has 0 images of the class 'unknown'",
        ),
        (
            "dtd",
            lambda f: spoil(
                f,
                "../dataset_specs/dtd_dataset_spec.json",
                json.dumps(
                    {
                        "classes_per_split": {"TRAIN": 1, "VALID": 0, "TEST": 0},
                        "class_names": {},
                        "images_per_class": {},
                    }
                ),
            ),
            "names the class '0' and does not describe it",
        ),
    ],
)
def test_damaged_sources(
    source: str,
    change: Callable[[Path], object],
    message: str,
    damaged: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = damaged(source)
    change(folder)
    assert re.search(
        message, refusal(capsys, f"--data.root={folder.parent}", f"--data.train_sources=[{source}]")
    )


def test_other_numbers_are_accepted_on_request(damaged: Callable[[str], Path]) -> None:
    folder = damaged("dtd")
    next((folder / "images" / "dtd 3").glob("*.jpg")).unlink()
    data = MetaDatasetDataModule(str(folder.parent), verify=False, image_size=8)
    assert len(data.sources("test")) == 1
    assert data.protocol()["split"] == "published, not verified"
