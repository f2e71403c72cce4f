"""Whether files of texts are those that were published, by their checksums."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from fewshot.datasets.reading.downloads import file_hash
from fewshot.errors import FewshotError

LOG = logging.getLogger(__name__)


def find_content(
    folders: Iterable[Path], name: str, checksums: Mapping[str, str], wanted: str
) -> Path | None:
    """The file with the content `wanted`, whatever it is called; else that of the usual `name`.

    Args:
        folders: where files may lie.
        name: what the file is usually called.
        checksums: the sha256 of each published content by its name.
        wanted: one of these names.

    Returns:
        The file; None where none has the name or the content.
    """
    folders = list(folders)
    usual = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if usual is not None and file_hash(usual, "sha256") == checksums[wanted]:
        return usual
    others = (path for folder in folders for path in sorted(folder.glob("*.json")))
    return next((p for p in others if file_hash(p, "sha256") == checksums[wanted]), usual)


def is_published(
    path: Path,
    checksums: Mapping[str, str],
    wanted: str,
    remedy: str,
    algorithm: str = "sha256",
) -> bool:
    """Whether a file has a published content; if it is not known, one line says so.

    Args:
        path: the file.
        checksums: the digest of each published content by its name.
        wanted: what the file shall hold. A name of the user's own may hold any of them.
        remedy: what the user can do about a file that is not the published one.
        algorithm: what the digests are; see `file_hash`.

    Raises:
        FewshotError: it has another content than the published `wanted`, which is named.
    """
    found = file_hash(path, algorithm)
    other = [name for name, checksum in checksums.items() if checksum == found]
    if other and (wanted in other or wanted not in checksums):
        return True
    if other:
        raise FewshotError(
            f"{path} holds the published {other[0]}, not {wanted}; ask for {other[0]}, or {remedy}"
        )
    warn_of_content(path, wanted, remedy, algorithm)
    return False


@rank_zero_only
def warn_of_content(path: Path, wanted: str, remedy: str, algorithm: str = "sha256") -> None:
    """Say that the content of a file is not known to be the published one."""
    LOG.warning(
        "%s is not known to be the published %s: its %s is another; if it should be, %s",
        path,
        wanted,
        algorithm,
        remedy,
    )
