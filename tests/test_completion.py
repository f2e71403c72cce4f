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
        ("fewshot completion ", ["bash ", "zsh "], []),
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
    assert main(["completion", "fihs"]) == 2
    assert "'fihs' is no shell that can be told; choose from bash, zsh" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_asks_the_program(tmp_path: Path) -> None:
    program = tmp_path / "fewshot"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fewshot "$@"\n')
    program.chmod(0o755)
    script = (
        f'PATH="{tmp_path}:$PATH"; eval "$(fewshot completion bash)"; complete -p fewshot;'
        " export COMP_LINE='fewshot fit --model FOM' COMP_POINT=23; fewshot completion"
    )
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    told, *found = run.stdout.splitlines()
    assert "fewshot completion" in told
    assert found == ["FOMAML "]
