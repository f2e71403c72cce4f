"""Word vector files: what is read, what a benchmark and a backbone make of it, every refusal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import fake_clinc150

from fewshot import BagOfWords, CLINC150DataModule, FewshotError
from fewshot.datasets.reading.word_vectors import known_words, read_word_vectors


def written(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


@pytest.mark.parametrize("counts", [(), ("3 2",)])
def test_the_words_asked_for_are_read(tmp_path: Path, counts: tuple[str, ...]) -> None:
    file = written(tmp_path / "v.txt", *counts, "a 1 -2", "caf\xe9 0.5 3e-1", "a 7 7", "b 1 1")
    found = read_word_vectors(file, ["a", "caf\xe9", "absent"])
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "a": [1, -2],  # the first of two
        "caf\xe9": [0.5, np.float32(0.3)],
    }
    assert known_words(file, ["b", "absent"]) == {"b"}


def test_a_number_is_a_word_too(tmp_path: Path) -> None:
    found = read_word_vectors(written(tmp_path / "v.txt", "2017 1 2", "401 3 4"), ["2017", "401"])
    assert sorted(found) == ["2017", "401"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b", "line 2: b'b.*' is no word with its values; mend it"),
        ("", "line 2: .* is no word with its values"),
        ("b 1 x", r"line 2: a value is no number \(.*'x'.*\); mend the line"),
        ("b 1 nan", "line 2: the word 'b' has a value that is not finite; mend the line"),
        ("b 1 2 3", "line 2: the word 'b' has 3 values, earlier ones have 2; mend the line"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path / "v.txt", "a 1 2", line)
    with pytest.raises(FewshotError, match=message) as caught:
        read_word_vectors(file, ["a", "b"])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match=r"vectors .*none\.txt cannot be read"):
        read_word_vectors(tmp_path / "none.txt", ["a"])


def test_a_backbone_begins_with_them(tmp_path: Path) -> None:
    vocabulary = ["<padding>", "<unknown>", "a", "b"]
    file = written(tmp_path / "v.txt", "b 1 2 3", "c 4 5 6")
    bag = BagOfWords(5, embedding_dim=3, vectors=str(file), vocabulary=vocabulary)
    assert bag.embedding.weight[3].tolist() == [1, 2, 3]
    rest = bag.embedding.weight[[0, 1, 2, 4]]
    assert rest.abs().max() <= 0.25
    assert len(set(rest.flatten().tolist())) == rest.numel()  # random, not left at zero
    with pytest.raises(
        FewshotError, match=r"embedding_dim is 50, the vectors of .* have 3; set it to 3"
    ):
        BagOfWords(5, embedding_dim=50, vectors=str(file), vocabulary=vocabulary)
    with pytest.raises(FewshotError, match="give vocabulary"):
        BagOfWords(5, embedding_dim=3, vectors=str(file))


def test_words_of_test_texts_alone_get_ids_where_there_are_vectors(tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path / "clinc")
    data = CLINC150DataModule(root=str(root), split="all", way=150, shot=2)
    assert data.vocabulary is None
    assert "z" not in data.texts.vocabulary  # in test texts alone
    file = written(tmp_path / "v.txt", "z 1 2", "elsewhere 3 4")
    data = CLINC150DataModule(root=str(root), split="all", way=150, shot=2, vectors=str(file))
    assert data.vocabulary is not None
    assert data.vocabulary[-1] == "z"
    assert data.vocab_size == len(data.vocabulary)
    bag = BagOfWords(
        data.vocab_size, embedding_dim=2, vectors=data.vectors, vocabulary=data.vocabulary
    )
    assert torch.equal(bag.embedding.weight[-1], torch.tensor([1.0, 2.0]))
    with pytest.raises(
        FewshotError, match=r"the vectors of .* are those of words; leave out terms and tokenizer"
    ):
        CLINC150DataModule(root=str(root), vectors=str(file), terms="ngrams").setup("fit")
