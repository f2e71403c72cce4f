"""Make a very small masked language model from texts alone: a WordPiece tokenizer and a BERT.

    python benchmarks/tiny_bert.py DIR_OF_FEWGLUE OUT [--steps 800] [--width 128] [--layers 2]
    [--pieces 4000]

It makes whole runs of FewGLUE possible where no pre-trained model is at hand: minutes of one core,
on the texts of the training, development and unlabelled examples, never of the validation sets. It
knows the verbalisers' words, and little else: its results say nothing about a method.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from fewshot.datasets.fewglue_patterns import TASKS

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
PARTS = ("train", "unlabeled", "dev32")
DEFAULTS = {"steps": 800, "width": 128, "layers": 2, "pieces": 4000, "batch": 16, "length": 48}
HIDDEN = 0.15  # the share of pieces that are predicted (arXiv:1810.04805)


def texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def read(root: Path) -> list[str]:
    """The texts of all tasks' files but the validation sets, each once."""
    files = sorted(path for part in PARTS for path in root.glob(f"*/*/{part}.jsonl"))
    lines = (line for path in files for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({text for line in lines for text in texts(json.loads(line))})


def make_tokenizer(corpus: list[str], pieces: int) -> PreTrainedTokenizerFast:
    """A lower-cased WordPiece tokenizer, which knows every verbaliser as one piece."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = sorted(
        {word for task in TASKS.values() for pattern in task.patterns for word in pattern.words}
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=pieces, special_tokens=[*SPECIAL.values(), *words]
    )
    tokenizer.train_from_iterator(corpus, trainer)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = [
        token for token in plain["added_tokens"] if token["content"] in SPECIAL.values()
    ]
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(plain)), **names)  # type: ignore[no-untyped-call]


def main() -> None:
    """Train the tokenizer and the model, and save both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    for name, value in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.manual_seed(0)
    corpus = read(args.root)
    tokenizer = make_tokenizer(corpus, args.pieces)
    stream = torch.tensor([i for ids in tokenizer(corpus, verbose=False)["input_ids"] for i in ids])
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=max(1, args.width // 32),
        intermediate_size=4 * args.width,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertForMaskedLM(config).train()
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{len(corpus)} texts, {len(stream)} pieces, {len(tokenizer)} known, {weights} weights",
        flush=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, args.steps, pct_start=0.1)
    begin, losses = time.perf_counter(), []
    for step in range(args.steps):
        starts = torch.randint(len(stream) - args.length, (args.batch, 1))
        tokens = stream[starts + torch.arange(args.length)]
        hidden = torch.rand(tokens.shape) < HIDDEN
        logits = model(input_ids=tokens.masked_fill(hidden, tokenizer.mask_token_id)).logits
        loss = F.cross_entropy(logits[hidden], tokens[hidden])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(
                f"step {step + 1}: loss {sum(losses[-100:]) / 100:.3f},"
                f" {time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
