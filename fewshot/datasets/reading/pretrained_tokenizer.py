"""A pre-trained language model's tokenizer: texts as the model's pieces, special ones included."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from fewshot.datasets.reading.hub import kept_alone
from fewshot.datasets.reading.packaged import model_location
from fewshot.errors import FewshotError
from fewshot.extras import require


class PretrainedTokenizer:
    """The tokenizer that belongs to a model of https://huggingface.co/models.

    Args:
        name: the model's name, or a folder with its tokenizer; of ``all_minilm_l6_v2``, the package
            that holds it.
        json: what `json` of such a tokenizer gave, from which it is built without its files; None
            loads it by name.

    Raises:
        FewshotError: it cannot be loaded, or transformers is not installed.
    """

    def __init__(self, name: str, json: str | None = None) -> None:
        transformers = require("transformers", "text")
        self.tokenizer: Any
        place = model_location(name) if json is None else ""
        try:
            if json is None:
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                    place,
                    trust_remote_code=False,  # a checkpoint may have named it
                    local_files_only=kept_alone(place),
                )
            else:
                fast = require("tokenizers", "text").Tokenizer.from_str(json)
                self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast)
        except (OSError, ValueError) as error:
            raise FewshotError(
                f"the tokenizer {name!r} cannot be loaded ({str(error).splitlines()[0]}); give a"
                " folder that holds its tokenizer.json, beside the model's config.json and"
                " model.safetensors, or a name of https://huggingface.co/models"
            ) from error
        pieces = {i: piece for piece, i in self.tokenizer.get_vocab().items()}
        self.vocabulary = tuple(pieces.get(i, f"<no piece {i}>") for i in range(max(pieces) + 1))
        """The piece of each id; ids may have gaps."""

    def split(self, text: str, max_pieces: int) -> list[str]:
        """The first `max_pieces` pieces of `text`, counting those of its beginning and end."""
        ids = self.tokenizer(text, truncation=True, max_length=max_pieces)["input_ids"]
        return [self.vocabulary[i] for i in ids]

    def split_words(self, words: Sequence[str]) -> list[list[str]]:
        """The pieces of each of a text's `words`, without the marks of its beginning and end.

        Raises:
            FewshotError: the tokenizer does not say which piece stands where.
        """
        if not self.tokenizer.is_fast:
            raise FewshotError(
                f"the tokenizer {self.tokenizer.name_or_path!r} does not say where its pieces"
                " stand; give one with a tokenizer.json"
            )
        text, ends, at = " ".join(words), [], 0
        for word in words:
            at += len(word) + 1
            ends.append(at)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces: list[list[str]] = [[] for _ in words]
        for i, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            # a piece may begin with the space before its word: its last character says which word
            # it is of
            pieces[bisect_right(ends, max(start, end - 1))].append(self.vocabulary[i])
        return pieces

    @property
    def ends(self) -> tuple[list[str], list[str]]:
        """The pieces that the model wants before and after every text."""
        bare, whole = (
            self.tokenizer("a", add_special_tokens=special)["input_ids"]
            for special in (False, True)
        )
        first = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        pieces = [self.vocabulary[i] for i in whole]
        return pieces[:first], pieces[first + len(bare) :]

    @property
    def pair_ends(self) -> tuple[list[int], list[int], list[int]]:
        """The ids that the model wants before, between and after two texts that it reads as one."""
        bare, whole = (
            self.tokenizer("a", add_special_tokens=False)["input_ids"],
            self.tokenizer("a", "a")["input_ids"],
        )
        first, second = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:first], whole[first + len(bare) : second], whole[second + len(bare) :]

    @property
    def json(self) -> str | None:
        """The tokenizer as the text of its ``tokenizer.json``.

        None where it has none and is known by name alone.
        """
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        text: str | None = None if fast is None else fast.to_str()
        return text
