"""FewRel: relations between two entities of a sentence; Han et al. 2018 (arXiv:1810.10147).

FewRel 2.0 (arXiv:1910.07124) adds relations of other domains (``val_pubmed``, ``val_nyt``,
``val_semeval``) in files of the same form. The test relations are hidden: who has no answers to
them tests on validation relations, by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fewshot.datasets.fewrel_files import find_file, look_at
from fewshot.datasets.reading.json_files import collection_paused, place, read_object
from fewshot.datasets.reading.texts import (
    TermSplitter,
    TextData,
    TextOptions,
    encode_texts,
    split_groups,
    with_inputs,
)
from fewshot.errors import FewshotError, check_at_least

REMEDY = "mend it, or fetch it again"
MARKERS = ("<head>", "</head>", "<tail>", "</tail>")  # around the mentions, where words get the ids
# pieces that BERT's tokenizers keep free for such use
UNUSED = ("[unused1]", "[unused2]", "[unused3]", "[unused4]")
PUNCTUATION = ("@", "@", "#", "#")  # for tokenizers without them (arXiv:2102.01373)

Terms = list[list[str]]
"""The terms of each word."""
Span = tuple[int, int]
"""The first place of a mention, and the place after its last."""


class Instance(NamedTuple):
    """A sentence with the first mentions of its two entities, and the pair of the entities' ids."""

    tokens: tuple[str, ...]
    head: Span
    tail: Span
    pair: tuple[str, str]

    @property
    def text(self) -> str:
        """The sentence without case and spaces, by which copies of it are known."""
        return "".join(self.tokens).lower().replace(" ", "")


Relations = Mapping[str, Sequence[Instance]]
"""The instances of each relation."""


class FewRel(NamedTuple):
    """FewRel's datasets, and what stands in them as a sentence for each part."""

    texts: TextData
    facts: dict[str, str]


@collection_paused()
def load_fewrel(
    root: Path,
    train: str,
    val: str,
    test: str | None,
    val_relations: int = 0,
    split_seed: int = 0,
    markers: bool = False,
    options: TextOptions | None = None,
) -> FewRel:
    """Read FewRel's files and make training, validation and test of them.

    The inputs of each dataset are ``tokens`` (n, L) and ``lengths`` (n,), and the places of the two
    entities' mentions, ``head`` and ``tail`` (n, 2): the first and the one after the last; all
    int64. A sentence that is too long is cut to a window with both mentions, or the first of them.

    An instance that stands in its relation twice is left out once. Training instances are left out
    whose entity pair or sentence occurs in validation or test, which some of the original's do.

    Args:
        root: holds the files, itself or in ``data/``, ``fewrel/`` or ``fewrel/data/``.
        train: name of the training relations' file, without ``.json``.
        val: the same for validation; not read where `val_relations` is set.
        test: the same for test.
        val_relations: training relations that are held out for validation instead.
        split_seed: which: the last of ``numpy.random.default_rng(split_seed).permutation`` of the
            sorted relations.
        markers: set terms of their own around the mentions, which then belong to them.
        options: how texts become ids; None means all defaults.

    Raises:
        FewshotError: an argument out of range, a missing file, or one that is not FewRel's; the
            first item that is wrong is named.
    """
    check_at_least(0, val_relations=val_relations, split_seed=split_seed)
    if test is None:
        raise FewshotError(
            "FewRel's test relations are hidden; set data.test to val_wiki, val_pubmed or another"
            " file to test on its relations, which results will say"
        )
    splitter = TermSplitter(options or TextOptions())
    files = {"train": train, "val": train if val_relations else val, "test": test}
    read = {name: read_relations(find_file(root, name)) for name in sorted(set(files.values()))}
    for name, relations in read.items():
        look_at(find_file(root, name), name, [*map(len, relations.values())])
    parts = {part: read[name] for part, name in files.items()}
    if val_relations:
        if val_relations >= len(parts["train"]):
            raise FewshotError(
                f"val_relations is {val_relations}, {train} has {len(parts['train'])} relations;"
                " hold out fewer"
            )
        sizes = {"train": len(parts["train"]) - val_relations, "val": val_relations}
        held = split_groups([[name] for name in sorted(parts["train"])], sizes, split_seed)
        parts |= {
            part: {name: parts["train"][name] for name in names} for part, names in held.items()
        }
    for part in ("val", "test"):
        if both := sorted(parts["train"].keys() & parts[part].keys()):
            raise FewshotError(
                f"the relation {both[0]!r} is in {files['train']} for training and in {files[part]}"
                f" for {part}; choose files without common relations"
            )
    once = {
        part: {name: list(dict.fromkeys(found)) for name, found in rows.items()}
        for part, rows in parts.items()
    }
    # The vocabulary is of all training sentences, so that a learner can be tested on any file.
    sentences = [one for instances in once["train"].values() for one in instances]
    once["train"] = without_leaks(once["train"], [*once["val"].values(), *once["test"].values()])
    facts = {
        part: _fact(
            files[part], once[part], parts[part], splitter, bool(val_relations) and part != "test"
        )
        for part in files
    }
    return FewRel(_encoded(once, splitter, markers, sentences), facts)


def read_relations(path: Path) -> dict[str, list[Instance]]:
    """The instances of each relation of a file, in its order.

    Raises:
        FewshotError: the file is not FewRel's; the first item that is wrong is named.
    """
    relations: dict[str, list[Instance]] = {}
    for relation, items in read_object(path, REMEDY).items():
        if not isinstance(items, list):
            raise FewshotError(f"{place(path, relation)} is no list of instances; {REMEDY}")
        relations[relation] = []
        for i, item in enumerate(items):
            try:
                relations[relation].append(_instance(item))
            except ValueError as error:
                raise FewshotError(f"{place(path, relation, i)} {error}; {REMEDY}") from error
    return relations


def _instance(item: Any) -> Instance:
    """The instance that a file's item holds; a ValueError says what is wrong."""
    match item:
        case {
            "tokens": [*tokens],
            "h": [_, head_id, [[*head], *_]],
            "t": [_, tail_id, [[*tail], *_]],
        }:
            if not all(isinstance(token, str) for token in tokens) or not "".join(tokens).strip():
                raise ValueError("has no words among its tokens")
            for name, places in (("h", head), ("t", tail)):
                if not places or not all(
                    isinstance(at, int) and 0 <= at < len(tokens) for at in places
                ):
                    raise ValueError(
                        f"has {name!r} at {places}, outside of its {len(tokens)} tokens"
                    )
            spans = [(min(places), max(places) + 1) for places in (head, tail)]
            return Instance(tuple(tokens), spans[0], spans[1], (str(head_id), str(tail_id)))
        case _:
            raise ValueError(f"is {item!r:.80}, not tokens with entities h and t")


def without_leaks(
    train: Relations, others: Iterable[Sequence[Instance]]
) -> dict[str, list[Instance]]:
    """The training instances whose entity pair and sentence none of the `others` has."""
    seen = [instance for instances in others for instance in instances]
    pairs, texts = (
        {frozenset(instance.pair) for instance in seen},
        {instance.text for instance in seen},
    )
    return {
        relation: [
            one for one in instances if frozenset(one.pair) not in pairs and one.text not in texts
        ]
        for relation, instances in train.items()
    }


def window(length: int, spans: Sequence[Span], size: int) -> Span:
    """The kept part of a sentence of `length` terms: at most `size`, with `spans`, else the first.

    >>> window(100, [(70, 72), (50, 51)], 30), window(100, [(70, 72), (10, 12)], 30)
    ((42, 72), (10, 40))
    >>> window(20, [(0, 1)], 30)
    (0, 20)
    """
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    start = min(first, max(last - size, 0))
    return start, min(start + size, length)


def _fact(name: str, kept: Relations, read: Relations, splitter: TermSplitter, shared: bool) -> str:
    """What a part consists of: file, relations, instances, and in what it differs from the file."""
    number, before = (sum(map(len, relations.values())) for relations in (kept, read))
    of = " of its relations" if shared else " relations"
    left_out = f", {before - number} left out as copies or leaks" if before > number else ""
    texts = ("".join(one.tokens) for instances in kept.values() for one in instances)
    case = ", lower-cased" if all(text == text.lower() for text in texts) else ""
    return f"{name}: {len(kept)}{of}, {number} instances{left_out}{case}"


def _encoded(
    parts: Mapping[str, Relations],
    splitter: TermSplitter,
    markers: bool,
    counted: Sequence[Instance],
) -> TextData:
    marks = _markers(splitter) if markers else None
    spans: dict[str, list[tuple[Span, Span]]] = {part: [] for part in parts}
    texts: dict[str, dict[str, list[list[str]]]] = {part: {} for part in parts}
    for part, relations in parts.items():
        for relation, instances in relations.items():
            found = [placed(instance, splitter, marks) for instance in instances]
            texts[part][relation] = [terms for terms, *_ in found]
            spans[part] += [(head, tail) for _, head, tail in found]
    data = encode_texts(
        texts, splitter, counted=[placed(instance, splitter, marks)[0] for instance in counted]
    )
    datasets = {}
    for part, dataset in data.datasets.items():
        head, tail = torch.from_numpy(np.array(spans[part], np.int64).reshape(-1, 2, 2)).unbind(1)
        datasets[part] = with_inputs(dataset, head=head.contiguous(), tail=tail.contiguous())
    return data._replace(datasets=datasets)


def _markers(splitter: TermSplitter) -> Terms:
    """The terms of the four markers."""
    if splitter.pretrained is None:
        return [[marker] for marker in MARKERS]
    if set(UNUSED) <= set(splitter.pretrained.vocabulary):
        return [[marker] for marker in UNUSED]
    return splitter.pretrained.split_words(PUNCTUATION)


def placed(
    instance: Instance, splitter: TermSplitter, markers: Terms | None
) -> tuple[list[str], Span, Span]:
    """The terms of a sentence, and where in them the mentions of head and tail stand."""
    words = splitter.split_words(instance.tokens)
    spans = (instance.head, instance.tail)
    before, after = ([], []) if splitter.pretrained is None else splitter.pretrained.ends
    if markers is not None:
        for (start, end), opening, closing in zip(spans, markers[::2], markers[1::2], strict=True):
            words[start] = opening + words[start]  # one after the other: a mention may be one word
            words[end - 1] = words[end - 1] + closing
    starts = list(accumulate(map(len, words), initial=0))
    terms = [term for word in words for term in word]
    places = [(starts[start], starts[end]) for start, end in spans]
    size = splitter.options.max_length - len(before) - len(after)
    first, last = window(len(terms), places, max(size, 1))
    head, tail = (_inside(span, first, last, len(before)) for span in places)
    return [*before, *terms[first:last], *after], head, tail


def _inside(span: Span, first: int, last: int, shift: int) -> Span:
    start, end = (min(max(place, first), last) - first + shift for place in span)
    return start, end
