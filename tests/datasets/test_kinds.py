"""What files of a user's own are, whatever their endings and links: images or texts."""

from pathlib import Path

import pytest

from fewshot import FewshotError
from fewshot.datasets.reading.kinds import check_kind, kind_of
from fewshot.datasets.text_folder import holds_texts


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("a/1.JPG", "b/1.PNG"), "image"),
        (("a/1.HEIC", "b/1.heif"), "image"),  # whether or not they can be read here
        (("a.TXT", "b.Txt"), "text"),
        (("texts.CSV",), "text"),
        (("texts.jsonl",), "text"),
        (("a/1.jpg", "a/notes.txt"), "image"),
        (("a.txt", "b.txt", "c.txt", "logo.png"), "text"),
        ((".hidden.txt", ".hidden.png", "a.doc"), None),
    ],
)
def test_the_files_tell_the_kind(names: tuple[str, ...], kind: str | None, tmp_path: Path) -> None:
    root = folder(tmp_path / "own", *names)
    assert kind_of(root) == kind
    assert holds_texts(root) == (kind == "text")
    (linked := tmp_path / "linked").mkdir()
    (linked / "class").symlink_to(root)
    (root / "round").symlink_to(linked)
    assert kind_of(linked) == kind
    for other in {"image", "text"} - {kind}:
        if kind is None:
            check_kind(linked, other)
        elif kind == "text" and "logo.png" in names:
            check_kind(linked, "image")  # with many notes
        else:
            with pytest.raises(FewshotError, match=rf"holds {kind}s, .* reads {other}s;.*backbone"):
                check_kind(linked, other)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.TXT", "text"), ("a.csv", "text"), ("a.JPG", "image"), ("a.HEIC", "image"), ("a", None)],
)
def test_a_file_tells_its_kind(name: str, kind: str | None, tmp_path: Path) -> None:
    file = folder(tmp_path, name) / name
    assert kind_of(file) == kind
    assert holds_texts(file) == (kind != "image")
