"""Examples as ids by patterns: what a classifier reads and what a masked language model completes.

Shapes: n examples, V views (the plain text, then a pattern each), C candidates, S sequences of a
view (1, or C where each candidate has its own), L places, M pieces of the longest candidate. An
example of fewer candidates than another has empty sequences (length 0) and answers of no piece (-1)
in their place.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from fewshot.datasets.fewglue import Row
from fewshot.datasets.fewglue_patterns import GlueTask, Pattern
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.errors import FewshotError

PLACE = re.compile(r"(\{\w+\})")
NO_PIECE = -1


class PatternEncoder:
    """Fills templates in with a language model's own ids.

    Cuts texts, never masks, down to `max_length`.

    What is too long loses pieces at the end of its longest text, then of the next longest.

    Args:
        tokenizer: the model's.
        max_length: places of a sequence, special ones included.

    Raises:
        FewshotError: the tokenizer has no mask.
    """

    def __init__(self, tokenizer: PretrainedTokenizer, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer.tokenizer, max_length
        names = ("cls", "sep", "mask", "pad")
        self.special: dict[str, int] = {
            name: getattr(self.tokenizer, f"{name}_token_id") for name in names
        }
        if missing := [name for name, i in self.special.items() if i is None]:
            raise FewshotError(
                f"the tokenizer has no {missing[0]} token; choose a masked language model, BERT"
                " for one"
            )
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """The pieces of `text` alone."""
        if text not in self._known:
            self._known[text] = self.tokenizer(text, add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
        return self._known[text]

    def encode(self, rows: Sequence[Row], task: GlueTask) -> dict[str, Tensor]:
        """The views of all rows, padded.

        Returns:
            ``tokens`` (n, V, S, L); ``lengths`` (n, V, S); ``places`` (n, V, S): where the masks
            begin, 0 in the plain view; ``answers`` (n, V, C, M): the candidates' pieces, then -1.
        """
        patterns = (Pattern(task.plain), *task.patterns)
        views = [[self._view(row, pattern) for pattern in patterns] for row in rows]
        tokens = [[[s for s, _ in sequences] for sequences, _ in view] for view in views]
        return {
            "tokens": padded(tokens, self.special["pad"]),
            "lengths": padded([[[[len(s)] for s in view] for view in row] for row in tokens], 0)[
                ..., 0
            ],
            "places": padded(
                [[[[place] for _, place in own] for own, _ in view] for view in views], 0
            )[..., 0],
            "answers": padded([[answers for _, answers in view] for view in views], NO_PIECE),
        }

    def _view(
        self, row: Row, pattern: Pattern
    ) -> tuple[list[tuple[list[int], int]], list[list[int]]]:
        """A row's sequences, each with the place of its first mask, and the candidates' pieces."""
        space = re.search(r" \{mask\}", pattern.template) is not None
        if pattern.words:
            return [self._fill(row, pattern.template, 1, "")], [
                [self._word(w, space)] for w in pattern.words
            ]
        if not row.choices:
            return [self._fill(row, pattern.template, 0, "")], []
        answers = [self.ids(" " + choice if space else choice) for choice in row.choices]
        if not all(answers):
            raise FewshotError(f"{row.where}: a choice has no piece of the tokenizer; fill it in")
        filled = [
            self._fill(row, pattern.template, len(a), c)
            for a, c in zip(answers, row.choices, strict=True)
        ]
        return filled, answers if "{mask}" in pattern.template else []

    def _word(self, word: str, space: bool) -> int:
        ids = self.ids(" " + word if space else word)
        if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
            raise FewshotError(
                f"the verbaliser {word!r} is not one piece of the tokenizer, but {len(ids)} or"
                " unknown; choose a model whose vocabulary has the word"
            )
        return ids[0]

    def _fill(self, row: Row, template: str, masks: int, choice: str) -> tuple[list[int], int]:
        fields = {**row.fields, "choice": choice}
        parts: list[tuple[str, list[int]]] = []
        spaced = False
        for part in PLACE.split(template):
            name = part[1:-1] if PLACE.fullmatch(part) else ""
            if name == "mask":
                parts.append(("mask", [self.special["mask"]] * masks))
            elif name == "sep":
                parts.append(("", [self.special["sep"]]))
            else:  # a space before a text belongs to it, which byte-pair tokenizers see
                text = fields[name] if name else part.strip()
                lead = " " if parts and (spaced or part[:1] == " ") else ""
                parts.append((name, list(self.ids(lead + text)) if text else []))
            spaced = part[-1:] == " "
        texts = [ids for name, ids in parts if name not in ("", "mask")]
        excess = sum(len(ids) for _, ids in parts) + 2 - self.max_length
        if excess > sum(len(ids) - 1 for ids in texts):
            raise FewshotError(
                f"{row.where}: max_length {self.max_length} is too small for {template!r}; raise it"
            )
        for _ in range(excess):
            max(texts, key=len).pop()
        sequence, place = [self.special["cls"]], 0
        for name, ids in parts:
            place = len(sequence) if name == "mask" else place
            sequence += ids
        return [*sequence, self.special["sep"]], place


def padded(nested: list[list[list[list[int]]]], filler: int) -> Tensor:
    """Lists of ids (n, V, S or C, any) as a tensor.

    Views of fewer lists than others are filled up.
    """
    rows, views = len(nested), len(nested[0])
    width = max(len(lists) for row in nested for lists in row)
    longest = max(len(ids) for row in nested for lists in row for ids in lists)
    out = torch.full((rows, views, width, longest), filler)
    for i, row in enumerate(nested):
        for v, lists in enumerate(row):
            for s, ids in enumerate(lists):
                out[i, v, s, : len(ids)] = torch.tensor(ids)
    return out
