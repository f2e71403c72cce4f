"""Text files of a user's own, a text a line."""

from pathlib import Path

from fewshot.errors import FewshotError


def text_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        FewshotError: it cannot be read, or is no text in UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise FewshotError(
            f"{path} cannot be read ({error.strerror}); give a text file, a text a line"
        ) from error
    except UnicodeDecodeError as error:
        raise FewshotError(
            f"{path} is no text in UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    return [line.strip() for line in lines if line.strip()]
