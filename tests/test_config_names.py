"""The configs that come with the package, by name."""

from pathlib import Path

import pytest
import yaml

from fewshot.cli import configs
from fewshot.cli.main import main
from fewshot.errors import FewshotError

ROOT = Path(__file__).resolve().parents[1]
NAME = "glyphs/protonet_5way1shot"
FILE = ROOT / f"configs/{NAME}.yaml"


def test_every_config_has_a_name_and_says_what_it_is() -> None:
    files = {path.relative_to(ROOT / "configs") for path in ROOT.glob("configs/*/*.yaml")}
    assert {Path(f"{name}.yaml") for name in configs.names()} == files
    for name in configs.names():
        assert len(configs.header(name).split()) >= 4, name
        assert not configs.header(name).startswith("#")


@pytest.mark.parametrize("value", [NAME, f"{NAME}.yaml", f"configs/{NAME}.yaml"])
def test_a_name_is_found_from_any_folder(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(configs.locate(value)) == FILE


def test_a_file_of_that_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glyphs").mkdir()
    for value in (NAME, f"{NAME}.yaml"):
        (tmp_path / value).write_text("seed_everything: 1")
        assert configs.locate(value) == value


def test_every_place_of_a_command_line() -> None:
    args = ["fit", "--config", NAME, f"--config={NAME}", "-c", NAME, "--data.root", NAME]
    path = str(FILE)
    assert configs.located(args) == [
        *("fit", "--config", path, f"--config={path}", "-c", path, "--data.root", NAME)
    ]
    inline = ["fit", "--config", "seed_everything: 3", "--config"]
    assert configs.located(inline) == inline


def test_an_unknown_name() -> None:
    with pytest.raises(FewshotError, match=rf"glyph/.* does not exist; did you mean '{NAME}'\?"):
        configs.locate("glyph/protonet_5way1shot")
    with pytest.raises(FewshotError, match="or a name that `fewshot list configs` shows"):
        configs.locate("0")


def test_a_run_by_name_is_the_run_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = []
    for value in (NAME, str(FILE)):
        with pytest.raises(SystemExit):
            main(["fit", "--config", value, "--config", "trainer/ddp", "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert printed[0]["data"]["init_args"]["train_way"] == 20
    assert printed[0]["trainer"]["devices"] == 2


def test_prepare_takes_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "--config", NAME]) == 0
    assert capsys.readouterr().out.startswith("Glyphs is prepared.")


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["list", "configs"]) == 0
    out = capsys.readouterr().out
    for name in configs.names():
        assert name in out
        assert configs.header(name).split(". ")[0] in out
    for kind, there, not_there in (
        ("learners", "MAML", "Conv4"),
        ("benchmarks", "GlyphsDataModule", "MAML "),
        ("backbones", "Conv4", "MAML "),
    ):
        assert main(["list", kind]) == 0
        out = capsys.readouterr().out
        assert f"│ {there}" in out
        assert f"│ {not_there}" not in out
