"""The tokenizer of a pre-trained language model: texts as the pieces that the model knows, special ones included."""

from typing import Any

from fewshot.errors import FewshotError
from fewshot.extras import require


class PretrainedTokenizer:
    """The tokenizer that belongs to a model of https://huggingface.co/models.

    Args:
        name: the model's name, or a folder with its tokenizer.
        json: what `json` of such a tokenizer gave, from which it is built without its files; None loads it by name.

    Raises:
        FewshotError: it cannot be loaded, or transformers is not installed.
    """

    def __init__(self, name: str, json: str | None = None) -> None:
        transformers = require("transformers", "text")
        self.tokenizer: Any
        try:
            if json is None:
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            else:
                fast = require("tokenizers", "text").Tokenizer.from_str(json)
                self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast)
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

    @property
    def json(self) -> str | None:
        """The tokenizer as the text of its ``tokenizer.json``; None where it has none and is known by name alone."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        text: str | None = None if fast is None else fast.to_str()
        return text
