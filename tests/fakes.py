"""Generated stand-ins for the benchmarks' data, as small as their readers accept."""

import gzip
import io
import json
import pickle
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.datasets.cifar100 import CIFAR_FS_TEST, CIFAR_FS_VAL
from fewshot.datasets.fewglue_patterns import TASKS
from fewshot.datasets.imagenet_classes import MINI, TIERED, classes
from fewshot.datasets.omniglot import HALVES, cache_file
from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.datasets.snips import INTENTS as SNIPS_INTENTS
from fewshot.extras import require


def fake_omniglot(root: Path) -> None:
    """Omniglot's cache of decoded drawings, for 60-way training and 20-way tests (vinyals, lake)."""
    alphabets = (
        "background/Greek",
        "background/Sanskrit",
        "background/Hebrew",
        "evaluation/Kannada",
    )
    names = [f"images_{name}/character{i:02d}" for name in alphabets for i in range(1, 21)]
    images = np.random.default_rng(0).integers(0, 256, (len(names), 20, 28, 28), np.uint8)
    for half in HALVES:  # which the cache answers for
        (root / "omniglot").mkdir(parents=True, exist_ok=True)
        (root / "omniglot" / f"{half}.zip").write_bytes(b"")
    cached_arrays(
        cache_file(root, root / "omniglot"),
        lambda: {"images": images, "characters": np.array(names)},
    )


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


def fake_mnist(root: Path, drawings: int = 12) -> Path:
    """MNIST's four files: bright corners, the middle pixel is the digit.

    Two `drawings` of each digit are test's.
    """
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    for part, number in (("train", 10 * drawings - 20), ("t10k", 20)):
        labels = np.arange(number, dtype=np.uint8) % 10
        images = np.random.default_rng(number).integers(1, 255, (number, 28, 28), np.uint8)
        images[:, [[0], [-1]], [0, -1]], images[:, 14, 14] = 255, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes(), 1)
            )
    return root


def fake_cifar100(root: Path, images: int = 20) -> Path:
    """CIFAR-100's three files, in which a class has its colour.

    The names are the real ones as far as splits tell.
    """
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    coarse = np.arange(100) % 20  # any superclasses: FC100 splits by their numbers
    rng = np.random.default_rng(0)
    for part, number in (("train", images * 4 // 5), ("test", images // 5)):
        fine = np.repeat(np.arange(100), number)
        pixels = (fine[:, None] + 40 * np.arange(3)).repeat(1024, 1) + rng.integers(
            0, 9, (len(fine), 3072)
        )
        arrays = {
            "data": pixels.astype(np.uint8),
            "fine_labels": fine.tolist(),
            "coarse_labels": coarse[fine].tolist(),
        }
        (folder / part).write_bytes(pickle.dumps(arrays, 2))
    names = sorted({*CIFAR_FS_VAL.split(), *CIFAR_FS_TEST.split()})
    names += [f"zz_{i}" for i in range(100 - len(names))]
    meta = {"fine_label_names": names, "coarse_label_names": [f"group_{i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, 2))
    return root


def fake_mini_imagenet(root: Path, form: str = "folders", images: int = 18) -> Path:
    """mini-ImageNet's classes in one of the four forms.

    Image i of class c of a split has the colour `colour(c, i)`.
    """
    for split, names in classes(MINI).items():
        pixels = np.stack(
            [
                np.full((12, 10, 3), colour(c, i), np.uint8)
                for c in range(len(names))
                for i in range(images)
            ]
        )
        labels = [name for name in names for _ in range(images)]
        if form in ("folders", "csv"):
            for number, (name, image) in enumerate(zip(labels, pixels, strict=True)):
                below = f"{split}/{name}" if form == "folders" else "images"
                (root / below).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(root / below / f"{name}{number:04d}.png")
            if form == "csv":
                rows = [f"{name}{number:04d}.png,{name}" for number, name in enumerate(labels)]
                (root / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
            continue
        root.mkdir(parents=True, exist_ok=True)
        if form == "cache_pkl":
            rows_of = {
                name: [i for i, label in enumerate(labels) if label == name]
                for name in reversed(names)
            }
            content = pickle.dumps({"image_data": pixels, "class_dict": rows_of})
            (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(content)
        else:
            part = "train_phase_train" if split == "train" else split
            numbers = [names.index(label) for label in labels]
            content = pickle.dumps({"data": pixels, "labels": numbers}, 2)
            (root / f"miniImageNet_category_split_{part}.pickle").write_bytes(content)
    return root


def fake_tiered_imagenet(
    root: Path, form: str = "folders", images: int = 3, compressed: bool = False
) -> Path:
    """tiered-ImageNet's classes in one of the three forms.

    Image i of class c of a split is of one colour.
    """
    root.mkdir(parents=True, exist_ok=True)
    for split, names in classes(TIERED).items():
        numbers = np.tile(np.arange(len(names)), images)  # not side by side
        pixels = [
            np.full((8, 8, 3), colour(c, i // len(names)), np.uint8)
            for i, c in enumerate(numbers.tolist())
        ]
        files = []
        for image in pixels:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            files.append(file.getvalue())
        if form == "folders":
            for i, (number, content) in enumerate(zip(numbers, files, strict=True)):
                (root / split / names[number]).mkdir(parents=True, exist_ok=True)
                (root / split / names[number] / f"{i:05d}.png").write_bytes(content)
            continue
        (root / f"{split}_labels.pkl").write_bytes(
            pickle.dumps({"label_specific": numbers, "label_general": numbers}, 2)
        )
        if form == "png_pkl":
            # as OpenCV's imencode gives them
            arrays = [np.frombuffer(content, np.uint8)[:, None] for content in files]
            (root / f"{split}_images_png.pkl").write_bytes(pickle.dumps(arrays, 2))
        else:  # OpenCV's order of channels
            (np.savez_compressed if compressed else np.savez)(
                root / f"{split}_images.npz", images=np.stack(pixels)[..., ::-1]
            )
    return root


def colour(number: int, image: int) -> tuple[int, int, int]:
    """What the fake ImageNets paint image `image` of class `number` in."""
    return number % 256, number // 256, image


def fake_cub(root: Path, images: int = 18) -> Path:
    """CUB-200-2011's tables and photographs: 24x16, black but for a box as bright as its kind."""
    folder = root / "CUB_200_2011"
    rng = np.random.default_rng(0)
    lines: list[str] = []
    boxes: list[str] = []
    for kind in range(1, 201):
        name = f"{kind:03d}.Bird_{kind}"
        (folder / "images" / name).mkdir(parents=True)
        for i in range(images):
            left, top = int(rng.integers(0, 14)), int(rng.integers(0, 6))
            pixels = np.zeros((16, 24, 3), np.uint8)
            pixels[top : top + 9, left : left + 10] = kind
            Image.fromarray(pixels).save(folder / "images" / name / f"Bird_{kind}_{i:04d}.png")
            lines.append(f"{len(lines) + 1} {name}/Bird_{kind}_{i:04d}.png")
            boxes.append(f"{len(lines)} {left}.0 {top}.0 10.0 9.0")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
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
    (root / "domains.json").write_text(
        json.dumps({f"domain_{d}": intents[d::10] for d in range(10)})
    )
    return root


WORDS = ("greet", "thank", "order", "cancel", "complain", "praise", "ask", "leave", "pay", "wait")


def fake_text_folder(root: Path, classes: int = 8, texts: int = 6) -> Path:
    """Texts of one's own: a file of lines for each class, told apart by a word."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(classes):
        words = [f"{WORDS[number]} {word} please" for word in string.ascii_lowercase[:texts]]
        (root / f"{WORDS[number]}.txt").write_text("\n".join(words))
    return root


def fake_snips(root: Path) -> Path:
    """SNIPS's files: 120 utterances of each intent for training and 3 for validation.

    One file is Latin-1.
    """
    for intent in SNIPS_INTENTS:
        folder = root / "2017-06-custom-intent-engines" / intent
        folder.mkdir(parents=True)
        for name, texts in (
            (f"train_{intent}_full", [f"caf\xe9 {intent} number {i}" for i in range(120)]),
            (f"validate_{intent}", [f"please {intent} {word}" for word in "abc"]),
        ):
            items = [
                {"data": [{"text": text[:4]}, {"text": text[4:], "entity": "it"}]} for text in texts
            ]
            encoding = "latin-1" if intent == "PlayMusic" else "utf-8"
            (folder / f"{name}.json").write_text(
                json.dumps({intent: items}, ensure_ascii=False), encoding
            )
    return root


def fake_wiki_one(root: Path, entities: int = 60) -> Path:
    """Wiki-One's files: relations are shifts on a ring of entities, so vectors can be learned."""
    root.mkdir(parents=True, exist_ok=True)
    stages = {"train": range(3, 7), "dev": range(7, 15), "test": range(15, 25)}
    tasks: dict[str, dict[str, list[list[str]]]] = {
        stage: {f"by{shift}": [] for shift in shifts} for stage, shifts in stages.items()
    }
    tails: dict[str, list[str]] = {}
    for relations in tasks.values():
        for name in relations:
            for i in range(0, entities, 4):
                tail = f"e{(i + int(name[2:])) % entities}"
                relations[name].append([f"e{i}", name, tail])
                tails[f"e{i}{name}"] = [tail]
    candidates = {
        name: [f"e{i}" for i in range(entities)]
        for relations in tasks.values()
        for name in relations
    }
    lines = [
        f"e{i}\tnext{shift}\te{(i + shift) % entities}\n"
        for shift in (1, 2)
        for i in range(entities // shift)
    ]
    (root / "path_graph").write_text("".join(lines))
    contents = {
        **{f"{stage}_tasks.json": relations for stage, relations in tasks.items()},
        "rel2candidates.json": candidates,
        "e1rel_e2.json": tails,
        "ent2ids": {f"e{i}": i for i in range(entities)},
        "relation2ids": {
            name: i for i, name in enumerate(("next1", "next2", "next1_inv", "next2_inv"))
        },
    }
    for file, content in contents.items():
        (root / file).write_text(json.dumps(content))
    return root


def fake_fewrel(
    root: Path, relations: int = 24, test_relations: int = 8, instances: int = 12
) -> Path:
    """FewRel's ``train_wiki_subset.json`` and ``val_wiki.json``: each relation has its own word."""
    root.mkdir(parents=True, exist_ok=True)
    for file, names in (
        ("train_wiki_subset", [f"P{i}" for i in range(relations)]),
        ("val_wiki", [f"P{i}" for i in range(relations, relations + test_relations)]),
    ):
        content = {
            name: [
                {
                    "tokens": [
                        f"head{name}x{i}",
                        "is",
                        f"verb{name}",
                        "of",
                        "the",
                        f"tail{name}x{i}",
                        ".",
                    ],
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
    """A tiny BERT with its tokenizer of 40 word pieces, as the transformers library stores them."""
    words = ["please", "intent", "_", *(f"##{i}" for i in range(10)), *string.ascii_lowercase[:22]]
    return fake_bert(folder, words, max_position_embeddings=24)


def fake_bert(folder: Path, words: Sequence[str], **changes: Any) -> Path:
    """A tiny BERT with the tokenizer of these word pieces and the special ones.

    `changes` of its config.
    """
    transformers = require("transformers", "text")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        **changes,
    )
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def save_pair(image: Path, mask: Path, values: np.ndarray) -> None:
    """An image whose colours are those of its mask's values, and the mask (H, W) uint8."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    Image.fromarray(colours[values]).save(image)
    Image.fromarray(values).save(mask)


def fake_voc(root: Path, images: int = 2) -> Path:
    """VOC2012, SegmentationClassAug, PASCAL-5i's published lists: one class fills half an image."""
    for part, year in (("trn", 2007), ("val", 2008)):
        names = []
        for number, value in enumerate(np.repeat(np.arange(1, 21), images)):
            names.append(name := f"{year}_{number:06d}")
            values = np.zeros((64, 64), np.uint8)
            values[:, :32], values[0, 32:] = value, 255
            save_pair(
                root / f"JPEGImages/{name}.jpg", root / f"SegmentationClassAug/{name}.png", values
            )
        for fold in range(4):
            path = root / f"lists/{part}/fold{fold}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            chosen = range(5 * fold * images, 5 * (fold + 1) * images)
            path.write_text("".join(f"{names[i]}__{i // images + 1:02d}\n" for i in chosen))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")
    return root


def fake_camvid(root: Path, images: int = 2) -> Path:
    """CamVid's folders; every image has all classes, in stripes."""
    values = np.repeat(np.arange(12, dtype=np.uint8), 8)[None].repeat(72, 0)
    for split in ("train", "val", "test"):
        for i in range(images):
            save_pair(
                root / f"{split}/{split}_{i}.png",
                root / f"{split}annot/{split}_{i}.png",
                np.roll(values, i, 1),
            )
    return root


def fake_masks(root: Path, images: int = 6) -> Path:
    """``root/{images,masks}/{train,val,test}``: a class an image, half of it, values 1 to 6."""
    for split in ("train", "val", "test"):
        for i in range(6 * images):
            values = np.zeros((64, 80), np.uint8)
            values[:, 40:] = i % 6 + 1
            save_pair(root / f"images/{split}/{i}.jpg", root / f"masks/{split}/{i}.png", values)
    return root


def fake_masked_language_model(folder: Path) -> Path:
    """A tiny BERT that fills in masks, with letters, the verbalisers and some marks for pieces."""
    transformers = require("transformers", "text")
    letters = [
        mark + letter for letter in string.ascii_lowercase + string.digits for mark in ("", "##")
    ]
    words = sorted(
        {word for task in TASKS.values() for p in task.patterns for word in p.words} - set(letters)
    )
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
    word, label = (
        string.ascii_lowercase[number % 26],
        TASKS[task].labels[number % 2] if TASKS[task].labels else 0,
    )
    if task == "MultiRC":
        answers = [{"text": f"{word} {i}", "idx": i, "label": (number + i) % 2} for i in range(3)]
        return {
            "idx": number,
            "passage": {"text": f"a {word}", "questions": [{"question": "b?", "answers": answers}]},
        }
    if task == "ReCoRD":
        passage = f"Ann and {word.upper()} Bell.\n@highlight\nBell met Ann." + " Cy Doe came." * (
            number % 3 == 0
        )
        names = ("Ann", f"{word.upper()} Bell", "Bell", *(("Cy Doe",) if number % 3 == 0 else ()))
        spans = [(passage.index(name), name) for name in names]
        entities = [{"start": start, "end": start + len(name) - 1} for start, name in spans]
        answers = [
            {"start": s, "end": s + len(n) - 1, "text": n} for s, n in spans[: 1 + number % 2]
        ]
        qas = [{"query": f"{word}: @placeholder's was.", "answers": answers, "idx": number}]
        return {
            "idx": number,
            "source": word,
            "passage": {"text": passage, "entities": entities},
            "qas": qas,
        }
    fields: dict[str, dict[str, Any]] = {
        "BoolQ": {"question": f"is {word}", "passage": f"the {word} is"},
        "CB": {"premise": f"the {word}.", "hypothesis": f"a {word}"},
        "COPA": {
            "premise": f"a {word}.",
            "choice1": f"It is {word}.",
            "choice2": "It was.",
            "question": "cause",
        },
        "RTE": {"premise": f"the {word}.", "hypothesis": f"a {word}."},
        "WSC": {
            "text": f"{word} has it .",
            "target": {"span2_index": 2, "span2_text": "it", "span1_text": word},
        },
        "WiC": {"word": word, "sentence1": f"a {word}.", "sentence2": f"the {word}."},
    }
    return {**fields[task], "idx": number, "label": label}


def fake_fewglue(root: Path) -> Path:
    """FewGLUE's files of all tasks, few short examples, and a model to read them in `root`/bert."""
    for task in TASKS:
        for sub, part, number in (
            ("", "train", 32),
            ("", "unlabeled", 6),
            ("_32dev", "dev32", 5),
            ("_32dev", "val", 7),
        ):
            path = root / f"FewGLUE{sub}" / task / f"{part}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                "".join(json.dumps(fewglue_record(task, i)) + "\n" for i in range(number))
            )
    fake_masked_language_model(root / "bert")
    return root


def fake_orbit(
    root: Path, users: int = 2, things: int = 2, clean: int = 3, clutter: int = 1, frames: int = 50
) -> Path:
    """ORBIT's folders with annotations; only what is judged has many frames.

    A thing has its colour.
    """
    rng = np.random.default_rng(0)
    for split, start in (("train", 0), ("validation", users), ("test", 2 * users)):
        (root / "annotations" / split).mkdir(parents=True)
        for user in range(start, start + users):
            for thing in range(things):
                colour = rng.integers(0, 200, 3)
                for kind, videos in (("clean", clean), ("clutter", clutter)):
                    for video in range(videos):
                        name = f"P{user:03d}--thing{thing}--{kind}--{video}"
                        folder = root / split / f"P{user:03d}" / f"thing{thing}" / kind / name
                        folder.mkdir(parents=True)
                        notes = {}
                        for i in range(frames if kind == "clutter" and split != "train" else 4):
                            file = f"{name}-{i + 1:05d}.jpg"
                            pixels = (colour + rng.integers(0, 50, (8, 8, 3))).astype(np.uint8)
                            Image.fromarray(pixels).save(folder / file)
                            notes[file] = {
                                "object_not_present_issue": False,
                                "object_bounding_box": None,
                            }
                        (root / "annotations" / split / f"{name}.json").write_text(
                            json.dumps(notes)
                        )
    return root
