"""The tokenizer of a pre-trained language model: texts as the pieces that the model knows, special ones included."""

from typing import Any

from fewshot.errors import FewshotError
from fewshot.extras import require


class PretrainedTokenizer:
    """The tokenizer that belongs to a model of https://huggingface.co/models.

    Args:
        name: the model's name, or a folder with its tokenizer.

    Raises:
        FewshotError: it cannot be loaded, or transformers is not installed.
    """

    def __init__(self, name: str) -> None:
        transformers = require("transformers", "text")
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise FewshotError(
                f"the tokenizer {name!r} cannot be loaded ({str(error).splitlines()[0]}); give a folder that holds one,"
                " or a name of https://huggingface.co/models"
            ) from error
        pieces = {i: piece for piece, i in self.tokenizer.get_vocab().items()}
        self.vocabulary = tuple(pieces.get(i, f"<no piece {i}>") for i in range(max(pieces) + 1))
        """The piece of each id; ids may have gaps."""

    def split(self, text: str, max_pieces: int) -> list[str]:
        """The first `max_pieces` pieces of `text`, counting those that mark its beginning and its end."""
        ids = self.tokenizer(text, truncation=True, max_length=max_pieces)["input_ids"]
        return [self.vocabulary[i] for i in ids]
