"""Bad command-line input: one line with the value and the remedy, exit status 2, no traceback."""

# a case is a line

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import FEW, QUIET, SINUSOID, fit
from fakes import fake_clinc150, fake_image_folder

from fewshot.cli.main import main
from fewshot.cli.messages import one_line
from fewshot.engine.compiling.compiler import _reason
from fewshot.errors import FewshotError, chain, nearest
from fewshot.learners import MAML

GLYPHS = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=GlyphsDataModule")
FOLDER = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=ImageFolderDataModule")
OMNIGLOT = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=OmniglotDataModule")
CLINC = ("--model=PrototypicalNetwork", "--model.backbone=TextCNN", "--data=CLINC150DataModule")


Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run a command that must fail; gives its one line, without the program's name."""

    def refuse(*args: str, command: str = "fit") -> str:
        capsys.readouterr()
        settings = (*FEW, *QUIET, "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}")
        needed = settings if any(arg.partition("=")[0] == "--data" for arg in args) else ()
        assert main([command, *args, *needed]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if line.startswith("fewshot: error: ")]
        assert lines == error.splitlines()[-1:], error
        return lines[0].removeprefix("fewshot: error: ")

    return refuse


@pytest.mark.parametrize(
    ("args", "message"),
    [
        # names
        ((*GLYPHS, "--model.distanc=cosine"), "PrototypicalNetwork has no argument 'distanc'; did you mean 'distance'?"),
        ((*GLYPHS, "--data.wya=5"), "GlyphsDataModule has no argument 'wya'; did you mean 'way'?"),
        ((*GLYPHS, "--model.backbone.widht=5"), "Conv4 has no argument 'widht'; did you mean 'width'?"),
        ((*GLYPHS, "--model.optimizer=Adam", "--model.optimizer.lrr=1"), "Adam has no argument 'lrr'; did you mean 'lr'?"),
        ((*GLYPHS, "--trainer.max_epohcs=1"), "unknown option 'trainer.max_epohcs'; did you mean 'trainer.max_epochs'?"),
        ((*GLYPHS, "--test_after_fti=1"), "unknown option 'test_after_fti'; did you mean 'test_after_fit'?"),
        (("--modle=MAML", "--data=GlyphsDataModule"), "unknown option 'modle'; did you mean 'model'?"),
        (("--model=MALM", "--data=GlyphsDataModule"), "'MALM' is no known class; did you mean 'MAML'?"),
        (("--model=MAML", "--data=GlyphDataModule"), "'GlyphDataModule' is no known class; did you mean 'GlyphsDataModule'?"),
        ((*SINUSOID, "--model.backbone=MPL"), "'MPL' is no known class; did you mean 'MLP'?"),
        ((*GLYPHS, "--model.optimizer=Adm"), "'Adm' is no known class; did you mean 'Adam'?"),
        ((*GLYPHS, "--model.inner_lr=1"), "PrototypicalNetwork has no argument 'inner_lr'; choose from backbone, batchnorm,"),
        ((*GLYPHS, "--model.width=5"), "PrototypicalNetwork has no argument 'width'; did you mean --model.backbone.width?"),
        (("--model=MAML", "--data=SelfLabelled", "--data.benchmark=Glyphs", "--data.way=5"), "SelfLabelledDataModule has no argument 'way'; did you mean --data.benchmark.way?"),
        ((*SINUSOID, "--model.adapters=Lor"), "'Lor' is no known class; did you mean 'LoRA'?"),
        ((*SINUSOID, "--model.outer=zzz"), "'zzz' is no known class; choose from ProMP, TRPO"),
        ((*SINUSOID, "--model.attack=zzz"), "'zzz' is no known class; choose from FGSM, PGD"),
        ((*GLYPHS, "--data.augment=Augmented"), "'Augmented' is no known class; did you mean 'Augmentation'?"),
        (("MAML",), "'MAML' belongs to no option; a class is given as --model MAML"),
        # what is missing
        ((), "--data and --model are missing; give a config (--config FILE) or a class each"),
        (("--data=GlyphsDataModule",), "--model is missing;"),
        (("--model=MAML",), "--data is missing, and with it the network that is usual there; give a config"),
        (("--model=MAML", "--data=MultiSourceDataModule"), "MAML needs the argument backbone; set it in the config or"),
        (FOLDER, "ImageFolderDataModule needs the argument root;"),
        ((*GLYPHS, "--model.lr_scheduler=StepLR"), "StepLR needs the argument step_size;"),
        ((*GLYPHS, "--model.backbone=torch.nn.Linear"), "Linear needs the argument out_features;"),
        # values
        ((*SINUSOID, "--model.inner_lr=abc"), "inner_lr is 'abc'; give a number"),
        ((*GLYPHS, "--data.shot=x"), "shot is 'x'; give an integer"),
        ((*GLYPHS, "--model.distance=cosin"), "distance is 'cosin'; give euclidean or cosine"),
        # several types: the item that is wrong is told
        ((*SINUSOID, "--model.adapt=[3]"), "adapt[0] is 3; give a text"),
        ((*GLYPHS, "--data.ways=3"), "ways is 3; give a list or leave it out"),
        ((*GLYPHS, "--data.ways=[2, x]"), "ways[1] is 'x'; give an integer or leave it out"),
        ((*GLYPHS, "--data.ways=[2, 3, 4]"), "ways is [2, 3, 4]; give 2 values or leave it out"),
        ((*FOLDER, "--data.fractions=[0.5, 0.5]"), "fractions is [0.5, 0.5]; give 3 values"),
        (("--model=MAML", "--data=FunctionMixture", "--data.modes=[lien]"), "modes[0] is 'lien'; did you mean 'line'?"),
        (("--model=MAML", "--data=FunctionMixture", "--data.modes=line"), "modes is 'line'; give 2 or 3 or 5 or a list"),
        ((*GLYPHS, "--trainer.max_epochs=x"), "trainer.max_epochs is 'x'; give an integer or null"),
        ((*GLYPHS, "--seed_everything=-5"), "seed_everything is -5; give an integer from 0 to"),
        ((*FOLDER, "--data.root=.", "--data.classes=x"), "classes is 'x'; give a mapping or leave it out"),
        ((*SINUSOID, "--model.backbone.hidden=[]"), "hidden is empty; give the MLP at least one layer"),
        ((*SINUSOID, "--model.inner_steps=0"), "inner_steps is 0; set inner_steps >= 1"),
        ((*GLYPHS, "--data.way=1"), "way is 1: an episode needs at least 2 classes; set way >= 2"),
        ((*GLYPHS, "--data.way=5000"), "the train split has 736 classes, too few for train_way 5000; set train_way <= 736"),
        ((*GLYPHS, "--data.shot=6"), "class 'Latin/U+0041 LATIN CAPITAL LETTER A' of the train split has 20 examples,"),
        ((*GLYPHS, "--data.meta_batch_size=3"), "train_episodes 8 is not a positive multiple of meta_batch_size 3;"),
        ((*GLYPHS, "--data.download=true"), "Glyphs has nothing to download; leave out download: true"),
        # what does not fit together
        ((*GLYPHS, "--model.backbone.in_channels=3"), "model.backbone.in_channels is 3 but GlyphsDataModule has in_channels 1;"),
        ((*GLYPHS, "--model.backbone.image_size=32"), "model.backbone.image_size is 32 but GlyphsDataModule has image_size 28;"),
        ((*GLYPHS, "--model.task={kind: regression}"), "model.task is {'kind': 'regression'} but GlyphsDataModule has task"),
        ((*SINUSOID, "--model.backbone=Conv4"), "Conv4 needs in_channels, which SinusoidDataModule does not have; choose a"),
        ((*GLYPHS, "--model.backbone=TextCNN"), "TextCNN needs vocab_size, which GlyphsDataModule does not have; choose a"),
        (
            ("--model=MAML", "--model.backbone=Conv4", "--data=GlyphsDataModule", "--data.train_way=20"),
            "MAML has one head for all episodes, but train_way is 20 and way is 5; set train_way to 5",
        ),
        # the Trainer
        ((*GLYPHS, "--trainer.gradient_clip_val=0.5"), "trainer.gradient_clip_val is 0.5, but learners clip by themselves;"),
        ((*GLYPHS, "--trainer.accumulate_grad_batches=2"), "accumulate_grad_batches is 2, but a meta-batch is one optimizer step; set data.meta"),
        ((*GLYPHS, "--trainer.accelerator=gpi"), "trainer.accelerator is 'gpi'; did you mean 'gpu'?"),
        # files
        (("--config=none.yaml",), "none.yaml does not exist; give an existing path"),
        (("--config", "glyphs/protonet_5way1sht"), "the file glyphs/protonet_5way1sht does not exist; did you mean 'glyphs/protonet_5way1shot'?"),
        (("-c", "glyphs/maml_5way1shot.yml"), "did you mean 'glyphs/maml_5way1shot'?"),
        ((*GLYPHS, "--ckpt_path=none.ckpt"), "there is no checkpoint none.ckpt; give the path of a .ckpt file"),
        ((*FOLDER, "--data.root=none"), "none is no folder that can be read (No such file or directory); correct the path"),
        ((*OMNIGLOT, "--data.root=none"), "none does not hold Omniglot: expected images_background.zip"),
        ((*CLINC, "--data.root=none"), "none"),
    ],
)  # fmt: skip
def test_one_line(
    args: tuple[str, ...],
    message: str,
    refusal: Refusal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "Omniglot" in message:
        # without the cache that other tests have filled
        monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    assert message in refusal(*args)


class Twin(MAML):
    pass


class Elsewhere:
    class Twin(MAML):
        pass


def test_a_short_name_that_means_several_classes(refusal: Refusal) -> None:
    message = refusal("--model=Twin", "--model.backbone=MLP", "--data=SinusoidDataModule")
    assert (
        message == "several classes are named 'Twin'; give the full import path of the one you mean"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(refusal: Refusal) -> None:
    assert "trainer.accelerator is gpu, but this machine has none" in refusal(
        *GLYPHS, "--trainer.accelerator=gpu"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {class_path: PrototypicalNetwork\ndata: [",
            "config.yaml, line 2: this is no YAML",
        ),
        ("", "config.yaml is no config; give a YAML file with keys such as `model:`"),
        ("- a", "config.yaml is no config"),
        ("modle: {class_path: MAML}", "unknown option 'modle'; did you mean 'model'?"),
        (
            (
                "model: {class_path: PrototypicalNetwork, init_args: {backbone: Conv4, sacle:"
                " 2}}\ndata: GlyphsDataModule"
            ),
            "PrototypicalNetwork has no argument 'sacle'; did you mean 'scale'?",
        ),
        (
            (
                "model: {class_path: PrototypicalNetwork, init_args: {backbone: Conv4}}\ndata:"
                " GlyphsDataModule\ntrainer: {max_epohcs: 1}"
            ),
            "max_epohcs",
        ),
    ],
)
def test_bad_config(text: str, message: str, refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert message in refusal(f"--config={tmp_path}/config.yaml")


def test_a_config_that_is_no_text(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert "config.yaml is no text file" in refusal("-c", f"{tmp_path}/config.yaml")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fti", "did you mean 'fit'?"),
        ("lsit", "did you mean 'list'?"),
        ("xyz", "choose from cache, check, compare, completion, export, fit, list"),
    ],
)
def test_unknown_command(command: str, message: str, refusal: Refusal) -> None:
    line = refusal(command=command)
    assert f"unknown command {command!r}" in line
    assert message in line


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith(
        "fewshot: error: no command given; choose from fit, validate, test, "
    )


@pytest.mark.parametrize(
    ("command", "options"),
    [("list", "--help"), *((name, "--format, --help, --metric") for name in ("rank", "summary"))],
)
def test_options_that_a_command_does_not_have(command: str, options: str, refusal: Refusal) -> None:
    line = refusal("--benchmark", command=command)
    assert line == f"unknown option '--benchmark'; choose from {options}"


def test_list_takes_a_kind_alone(refusal: Refusal) -> None:
    line = refusal("learner", command="list")
    assert line == "'learner' is no kind of thing to list; did you mean 'learners'?"
    assert "choose from backbones, benchmarks, configs, learners" in refusal("xyz", command="list")
    assert "'MAML' belongs to no option" in refusal("learners", "MAML", command="list")


def test_image_folders(refusal: Refusal, tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    args = (*FOLDER, f"--data.root={root}")
    assert f"{root} holds no folders; expected a folder of images for each class" in refusal(*args)
    fake_image_folder(root, classes=4)
    line = refusal(*args, "--data.way=5")
    assert "in train there are 4 classes, an episode needs 5; in val there are 4 classes" in line
    assert line.endswith("what works: add --data.way=auto to the command")
    fake_image_folder(tmp_path / "more", classes=5, images=3)
    corrupt = tmp_path / "more/val/g/1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:40])
    assert f"{corrupt} cannot be decoded" in refusal(
        *FOLDER, f"--data.root={tmp_path}/more", "--data.queries=2"
    )


def test_truncated_omniglot(
    refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    for half in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(tmp_path / f"{half}.zip", "w") as file:
            file.writestr(f"{half}/Greek/character01/0001_01.png", b"1" * 1000)
    args = (*OMNIGLOT, f"--data.root={tmp_path}")
    assert "holds 1 drawings, expected 20" in refusal(*args)
    whole = (tmp_path / "images_background.zip").read_bytes()
    (tmp_path / "images_background.zip").write_bytes(whole[:500])
    assert f"{tmp_path}/images_background.zip is truncated or corrupt" in refusal(*args)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w") as file:
        file.writestr("../images_background/Greek/character01/0001_01.png", b"1")
    assert "leads outside the archive; do not use this archive" in refusal(*args)


def test_other_json_than_clincs(refusal: Refusal, tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path / "clinc")
    args = (*CLINC, f"--data.root={root}")
    (root / "data_full.json").write_text(json.dumps({"train": 3}))
    assert str(root / "data_full.json") in refusal(*args)
    (root / "data_full.json").write_text("{")
    assert str(root / "data_full.json") in refusal(*args)


def test_text_and_image_networks_do_not_mix(refusal: Refusal, tmp_path: Path) -> None:
    root = f"--data.root={fake_clinc150(tmp_path / 'clinc')}"
    assert "Conv4 needs in_channels, which CLINC150DataModule does not have" in refusal(
        *CLINC, "--model.backbone=Conv4", root
    )
    assert "MLP needs in_features, which CLINC150DataModule does not have" in refusal(
        *CLINC, "--model.backbone=MLP", root
    )


def test_checkpoints_that_do_not_fit(refusal: Refusal, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SINUSOID, "--test_after_fit=false")
    checkpoint = run / "checkpoints/last.ckpt"
    args = (*SINUSOID, f"--ckpt_path={checkpoint}")
    line = refusal(*args, "--model.backbone.hidden=[40,7]", command="test")
    assert (
        "the parameter backbone.layers.2.weight is (40, 40) in the checkpoint, (7, 40) in this"
        " learner" in line
    )
    line = refusal(*args, "--model.backbone.norm=layer", command="test")
    assert "the checkpoint has no parameter backbone.layers." in line
    line = refusal(*GLYPHS, f"--ckpt_path={checkpoint}", command="test")
    assert (
        "the checkpoint holds a MAML, not a PrototypicalNetwork; load it with --model MAML" in line
    )
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other)
    assert "the checkpoint was not written by fewshot" in refusal(*SINUSOID, f"--ckpt_path={other}")
    for content in (b"text", checkpoint.read_bytes()[:2000], b""):
        other.write_bytes(content)
        assert f"{other} is no checkpoint, or a damaged one" in refusal(
            *SINUSOID, f"--ckpt_path={other}"
        )


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_DEBUG", "1")
    with pytest.raises(Exception, match="iner_lr"):
        main(["fit", *SINUSOID, "--model.iner_lr=1"])


def test_the_error_behind_the_error_is_shown() -> None:
    error = ValueError("Does not validate against any of the Union subtypes")
    error.__context__ = FewshotError("way is 1;\n  set way >= 2")
    assert one_line(error) == "way is 1; set way >= 2"


def test_errors_that_lead_back_to_one_another_come_to_an_end() -> None:
    """As TensorBoard's writer makes them: it raises an error again that is being handled."""
    first, second = OSError("no room"), ValueError("no step")
    second.__cause__, first.__context__ = first, second
    assert list(chain(first)) == [first, second]
    assert one_line(first) == "no room; FEWSHOT_DEBUG=1 shows the traceback"
    second.__cause__ = second
    assert list(chain(second)) == [second]
    with pytest.raises(OSError, match="no room") as caught:
        raise first
    assert _reason(caught.value) == "OSError: no room"


def test_what_no_pattern_knows_is_one_line() -> None:
    ends = "first second; FEWSHOT_DEBUG=1 shows the traceback"
    assert one_line(OSError("first\n   second")) == one_line(ValueError("first\n second")) == ends
    assert one_line(KeyError("first")).startswith("KeyError: 'first'; FEWSHOT_DEBUG=1")
    assert one_line(MemoryError()).startswith("out of memory")
    assert one_line(RuntimeError()).startswith("RuntimeError: no reason given; ")
    missing = ModuleNotFoundError("No module named 'wandb'", name="wandb.sdk")
    assert one_line(missing) == "No module named 'wandb'; install wandb"


def test_the_line_of_a_mistake_in_a_users_own_code_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def wrong():\n    return {}['x']\n")
    code: dict[str, Any] = {}
    exec(compile((tmp_path / "own.py").read_text(), str(tmp_path / "own.py"), "exec"), code)
    with pytest.raises(KeyError) as caught:
        torch.nn.Linear(1, 1).apply(lambda module: code["wrong"]())
    line = f"KeyError: 'x' ({tmp_path / 'own.py'}, line 2); FEWSHOT_DEBUG=1 shows the traceback"
    assert one_line(caught.value) == line


def test_nearest() -> None:
    assert nearest("maml", ["MAML", "Conv4"]) == "; did you mean 'MAML'?"
    assert nearest("xyz", ["b", "a"]) == "; choose from a, b"


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize("how", ["config", "file of a value", "value"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "holds more than 100000 values when its aliases (*name) are written out"),
        (MERGES, "holds more than 100000 values when its aliases (*name) are written out"),
        ("a: &a [*a]", "holds more than 100000 values when its aliases"),
        ("a: " + "[" * 20000, "is nested too deep"),
    ],
    ids=["aliases", "merges", "of itself", "nested"],
)
def test_yaml_that_grows_beyond_measure(
    how: str, text: str, message: str, refusal: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    args = {
        "config": [f"--config={tmp_path}/bomb.yaml"],
        "file of a value": [*GLYPHS, f"--trainer.logger={tmp_path}/bomb.yaml"],
        "value": [*GLYPHS, f"--trainer.logger={text}"],
    }
    start = time.monotonic()
    assert message in refusal(*args[how])
    assert time.monotonic() - start < 30  # unbounded it would be hours
