"""Type checkers know the arguments of every public class, those too that it hands on."""

import re
import subprocess
import sys
from pathlib import Path

from typed_arguments import TARGET, stub

ROOT = Path(__file__).resolve().parents[1]


def test_what_is_written_down_is_what_the_classes_take() -> None:
    assert TARGET.read_text() == stub(), "run `make arguments`"


def test_wrong_arguments_are_named_by_mypy(tmp_path: Path) -> None:
    """One wrong argument for each class, in one call of mypy."""
    names = re.findall(r"^class (\w+)\(", TARGET.read_text(), flags=re.M)
    assert {"MAML", "PrototypicalNetwork", "GlyphsDataModule", "Trainer"} <= set(names)
    assert len(names) > 80
    lines = [
        "import fewshot",
        "net: fewshot.Backbone",
        *(f"fewshot.{name}(inner_stpes=3)" for name in names),
    ]
    lines += ["fewshot.MAML(net, inner_steps=3, episode_parallel='vmap', gradient_clip=1.0)"]
    lines += ["fewshot.MAML(net, episode_parallel='fast')", "fewshot.GlyphsDataModule(way='five')"]
    script = tmp_path / "wrong.py"
    script.write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={tmp_path}", "--ignore-missing-imports",
         "--follow-imports=silent", str(script)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = {int(number) for number in re.findall(r"wrong\.py:(\d+): error", done.stdout)}
    right = len(names) + 3
    assert told == set(range(3, right)) | {right + 1, right + 2}, done.stdout[-2000:] + done.stderr
    assert (
        'Unexpected keyword argument "inner_stpes" for "MAML"; did you mean "inner_steps"?'
        in done.stdout
    )
