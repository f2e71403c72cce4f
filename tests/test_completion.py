"""Shell completion: what a command line that is begun may become."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot.cli.completion import candidates
from fewshot.cli.main import main


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("fewshot ", ["fit ", "list ", "completion "], ["--config "]),
        ("fewshot fi", ["fit "], ["list "]),
        ("fewshot fit --mo", ["--model ", "--model.help ", "--model.backbone.help "], ["--data "]),
        ("fewshot fit --model MAM", ["MAML ", "MAMLPlusPlus "], ["FOMAML "]),
        (
            "fewshot fit --model MAML --model.inner_",
            ["--model.inner_lr ", "--model.inner_steps "],
            [],
        ),
        ("fewshot fit --model=MAML --model.op", ["--model.optimizer "], []),
        ("fewshot fit --model MAML --model.episode_parallel ", ["loop ", "vmap "], ["number "]),
        ("fewshot fit --model MAML --model.first_order=", ["true", "false"], []),
        ("fewshot fit --model.backbone Co", ["Conv4 ", "Colours "], ["MLP "]),
        ("fewshot fit --model.backbone res", ["resnet18 "], []),
        ("fewshot fit --model.backbone Conv4 --model.backbone.w", ["--model.backbone.width "], []),
        ("fewshot test --data.help Gl", ["GlyphsDataModule "], []),
        ("fewshot fit --config glyphs/pro", ["glyphs/protonet_5way1shot "], ["omniglot/anp "]),
        ("fewshot fit --trainer.max_", ["--trainer.max_epochs ", "--trainer.max_steps "], []),
        ("fewshot sweep --model MAML --model.inner_l", ["--model.inner_lr "], []),
        ("fewshot sweep --", ["--jobs ", "--set ", "--dry_run "], []),
        ("fewshot fit --", ["--config "], ["--jobs "]),
        ("fewshot list ba", ["backbones "], []),
        ("fewshot compare --", ["--metric ", "--format ", "--plot "], ["--config "]),
        ("fewshot compare --format ", ["csv ", "latex "], ["--metric "]),
        ("fewshot compare --format la", ["latex "], ["table "]),
        ("fewshot compare --metric ", [], ["csv "]),
        ("fewshot reproduce glyphs/", ["glyphs/protonet_5way1shot "], ["--list "]),
        ("fewshot reproduce --d", ["--dry_run "], ["--list "]),
        ("fewshot compare --format=la", ["latex"], ["table"]),
        ("fewshot train --mod", ["--model "], []),
        ("fewshot fit --model ProtoNet --model.dist", ["--model.distance "], []),
        ("fewshot fit -c glyphs/protonet_5way1shot --model.dist", ["--model.distance "], []),
        (
            "fewshot fit -c glyphs/protonet_5way1shot --model.backbone.w",
            ["--model.backbone.width "],
            [],
        ),
        ("fewshot predict --", ["--support ", "--config "], []),
        ("fewshot completion ", ["bash ", "fish ", "zsh "], []),
        ("fewshot export --", ["--ckpt_path ", "--support "], []),
        ("fewshot check --", ["--help "], []),
        ("fewshot fit --model 'MA", [], ["MAML "]),
        ("fewshot nothing ", [], ["fit "]),
    ],
)
def test_candidates(line: str, some: list[str], none: list[str]) -> None:
    found = candidates(line)
    assert {*some} <= {*found}
    assert not {*none} & {*found}
    assert found == sorted({*found})


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd"]) == 2
    said = capsys.readouterr().err
    assert "'cmd' is no shell that can be told; choose from bash, fish, zsh" in said


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The folder of a program `fewshot`."""
    program = tmp_path / "fewshot"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fewshot "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_asks_the_program(programs: Path) -> None:
    script = (
        f'PATH="{programs}:$PATH"; eval "$(fewshot completion bash)"; complete -p fewshot;'
        " export COMP_LINE='fewshot fit --model FOM' COMP_POINT=23; fewshot completion"
    )
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    told, *found = run.stdout.splitlines()
    assert "fewshot completion" in told
    assert found == ["FOMAML "]


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_asks_the_program(programs: Path) -> None:
    (programs / "last.ckpt").touch()
    lines = (
        "fewshot fit --model FOM",
        "fewshot fit --model=FOM",
        "fewshot fit --trainer.max_e",
        "fewshot test --ckpt_path la",
        "fewshot test --ckpt_path=la",
    )
    script = (
        f'set -x PATH "{programs}" $PATH; cd "{programs}"; fewshot completion fish | source;'
        + "".join(f"complete -C '{line}';" for line in lines)
    )
    run = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    assert run.stdout.split() == [
        *("FOMAML", "--model=FOMAML", "--trainer.max_epochs"),
        *("last.ckpt", "--ckpt_path=last.ckpt"),
    ]
