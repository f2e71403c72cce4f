"""Generated stand-ins for the benchmarks' data, as small as their readers accept."""

import json
import string
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.datasets.files import cached_arrays
from fewshot.datasets.omniglot import CACHE_FILE
from fewshot.datasets.snips import INTENTS as SNIPS_INTENTS
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
    none = {f"oos_{part}": [["nothing of this", "oos"]] for part in ("train", "val", "test")}
    (root / "data_full.json").write_text(json.dumps(parts | none))
    (root / "domains.json").write_text(json.dumps({f"domain_{d}": intents[d::10] for d in range(10)}))
    return root


def fake_snips(root: Path) -> Path:
    """SNIPS's files: 120 utterances of each intent for training and 3 for validation; one file is Latin-1."""
    for intent in SNIPS_INTENTS:
        folder = root / "2017-06-custom-intent-engines" / intent
        folder.mkdir(parents=True)
        for name, texts in (
            (f"train_{intent}_full", [f"caf\xe9 {intent} number {i}" for i in range(120)]),
            (f"validate_{intent}", [f"please {intent} {word}" for word in "abc"]),
        ):
            items = [{"data": [{"text": text[:4]}, {"text": text[4:], "entity": "it"}]} for text in texts]
            encoding = "latin-1" if intent == "PlayMusic" else "utf-8"
            (folder / f"{name}.json").write_text(json.dumps({intent: items}, ensure_ascii=False), encoding)
    return root


def fake_fewrel(root: Path, relations: int = 24, test_relations: int = 8, instances: int = 12) -> Path:
    """FewRel's ``train_wiki_subset.json`` and ``val_wiki.json``: relations with a word of their own."""
    root.mkdir(parents=True, exist_ok=True)
    for file, names in (
        ("train_wiki_subset", [f"P{i}" for i in range(relations)]),
        ("val_wiki", [f"P{i}" for i in range(relations, relations + test_relations)]),
    ):
        content = {
            name: [
                {
                    "tokens": [f"head{name}x{i}", "is", f"verb{name}", "of", "the", f"tail{name}x{i}", "."],
                    "h": [f"head{name}x{i}", f"Q{name}h{i}", [[0]]],
                    "t": [f"tail{name}x{i}", f"Q{name}t{i}", [[4, 5]]],
                }
                for i in range(instances)
            ]
            for name in names
        }
        (root / f"{file}.json").write_text(json.dumps(content))
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
