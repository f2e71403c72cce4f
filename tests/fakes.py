"""Generated stand-ins for the benchmarks' data, as small as their readers accept."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.datasets.fewglue_patterns import TASKS
from fewshot.datasets.files import cached_arrays
from fewshot.datasets.omniglot import CACHE_FILE
from fewshot.extras import require


def fake_omniglot(root: Path) -> None:
    """Omniglot's cache of decoded drawings, with characters for 60-way training and 20-way tests (vinyals)."""
    names = [f"images_background/Greek/character{i:02d}" for i in range(1, 16)]
    names += [f"images_background/Hebrew/character{i:02d}" for i in range(1, 6)]
    names += [f"images_evaluation/Kannada/character{i:02d}" for i in range(1, 6)]
    images = np.random.default_rng(0).integers(0, 256, (len(names), 20, 28, 28), np.uint8)
    cached_arrays(root / "omniglot" / CACHE_FILE, lambda: {"images": images, "characters": np.array(names)})


def fake_image_folder(root: Path, classes: int = 5, images: int = 16) -> Path:
    """``root/{train,val,test}/<class>/*.png``; a class has its colour."""
    rng = np.random.default_rng(0)
    for number, split in enumerate(("train", "val", "test")):
        for name in string.ascii_lowercase[number * classes : (number + 1) * classes]:
            folder = root / split / name
            folder.mkdir(parents=True)
            colour = rng.integers(0, 236, (8, 8, 3))
            for i in range(images):
                pixels = (colour + rng.integers(0, 20, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def fake_clinc150(root: Path) -> Path:
    """CLINC150's two files: 150 intents in 10 domains, 20 utterances each."""
    intents = [f"intent_{i:03d}" for i in range(150)]
    parts = {
        part: [[f"please {word} {intent}", intent] for intent in intents for word in words]
        for part, words in (("train", string.ascii_lowercase[:16]), ("val", "xy"), ("test", "zw"))
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "data_full.json").write_text(json.dumps(parts | {"oos_train": [["nothing of this", "oos"]]}))
    (root / "domains.json").write_text(json.dumps({f"domain_{d}": intents[d::10] for d in range(10)}))
    return root


def fake_language_model(folder: Path) -> Path:
    """A tiny BERT with the tokenizer of its 40 word pieces, as the transformers library stores them."""
    transformers = require("transformers", "text")
    words = ["please", "intent", "_", *(f"##{i}" for i in range(10)), *string.ascii_lowercase[:22]]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=24,
    )
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def fake_masked_language_model(folder: Path) -> Path:
    """A tiny BERT that fills in masks, with letters, the verbalisers and some marks for pieces."""
    transformers = require("transformers", "text")
    letters = [mark + letter for letter in string.ascii_lowercase + string.digits for mark in ("", "##")]
    words = sorted({word for task in TASKS.values() for p in task.patterns for word in p.words} - set(letters))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *'.,?*/()":']
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def fewglue_record(task: str, number: int) -> dict[str, Any]:
    """A line of a task's file."""
    word, label = string.ascii_lowercase[number % 26], TASKS[task].labels[number % 2] if TASKS[task].labels else 0
    if task == "MultiRC":
        answers = [{"text": f"{word} {i}", "idx": i, "label": (number + i) % 2} for i in range(3)]
        return {"idx": number, "passage": {"text": f"a {word}", "questions": [{"question": "b?", "answers": answers}]}}
    fields: dict[str, dict[str, Any]] = {
        "BoolQ": {"question": f"is {word}", "passage": f"the {word} is"},
        "CB": {"premise": f"the {word}.", "hypothesis": f"a {word}"},
        "COPA": {"premise": f"a {word}.", "choice1": f"It is {word}.", "choice2": "It was.", "question": "cause"},
        "RTE": {"premise": f"the {word}.", "hypothesis": f"a {word}."},
        "WSC": {"text": f"{word} has it .", "target": {"span2_index": 2, "span2_text": "it", "span1_text": word}},
        "WiC": {"word": word, "sentence1": f"a {word}.", "sentence2": f"the {word}."},
    }
    return {**fields[task], "idx": number, "label": label}


def fake_fewglue(root: Path) -> Path:
    """FewGLUE's files of all tasks, of few and short examples, and a model to read them in `root`/bert."""
    for task in TASKS:
        for sub, part, number in (
            ("", "train", 32),
            ("", "unlabeled", 6),
            ("_32dev", "dev32", 5),
            ("_32dev", "val", 7),
        ):
            path = root / f"FewGLUE{sub}" / task / f"{part}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(fewglue_record(task, i)) + "\n" for i in range(number)))
    fake_masked_language_model(root / "bert")
    return root
