"""The page on unlabelled photos: its commands run."""

import re
import shlex
from pathlib import Path

import pytest
from commands import fewshot
from fakes import fake_image_folder

PAGE = Path(__file__).parents[1] / "docs" / "unlabelled.md"
SMALL = (
    "--data.image_size=16",
    "--data.train_way=3",
    "--model.backbone.width=4",
    "--trainer.max_steps=2",
    "--trainer.max_epochs=1",
)


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_image_folder(tmp_path / "photos")
    fake_image_folder(tmp_path / "labelled")
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 2
    for number, (program, command, *args) in enumerate(commands()):
        assert program == "fewshot"
        run = fewshot(command, tmp_path / str(number), *args, *SMALL)
        assert (run / "results.json").is_file()
