"""`fewshot predict --support DIR --query DIR`: name a user's own queries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewshot.cli.options import Options, add_checkpoint, loaded, share, yes_or_no
from fewshot.cli.right import right_table
from fewshot.errors import FewshotError
from fewshot.files import is_special
from fewshot.files.tables import printable, write_table

if TYPE_CHECKING:
    from fewshot.deployment.items import Predictions
    from fewshot.deployment.predictor import Predictor

SHOWN = 20  # rows of the table on the screen


def options() -> Options:
    """The command's options."""
    parser = Options(
        "predict",
        "Adapt a trained learner (--ckpt_path), or a pre-trained network without any training"
        " (--backbone), to a few examples of each class, and name queries. Writes a CSV file with"
        " the class of each query, its probability and every class's probability, and prints a"
        " table; where the queries lie in folders of the classes, also how many are right.",
        "`fewshot predict --config FILE --ckpt_path FILE` (with the config of a run) writes the"
        " predictions for the test episodes of a benchmark instead; its options are those of"
        " `fewshot test`.",
    )
    add_checkpoint(parser)
    parser.needed += [("--support",), ("--query",)]
    parser.add_argument(
        "--support",
        help=(
            "a folder with a folder of images for each class; for texts <class>.txt or"
            " <class>/*.txt, a text a line, or a CSV, TSV or JSONL file with labels"
        ),
    )
    parser.add_argument(
        "--query",
        help=(
            "a folder of images, or one; for texts a file, a text a line, or a table. In folders of"
            " the support's classes (for texts also <class>.txt, and with labels in a table) they"
            " are counted right and wrong"
        ),
    )
    parser.add_argument(
        "--reject", type=share, default=0.0, metavar="P", help="name no query that is less probable"
    )
    parser.add_argument(
        "--output",
        default="predictions.csv",
        help=(
            "the file to write, or a device such as /dev/stdout; a name that a spreadsheet would"
            " run (=, +, -, @ in front) gets an apostrophe before it"
        ),
    )
    parser.add_argument(
        "--expect",
        type=yes_or_no,
        default=True,
        metavar="true|false",
        help=(
            "say which accuracy is to be expected, by cross-validation within the support: the"
            " learner adapts up to five times more"
        ),
    )
    parser.add_argument("--device", default="auto", help="where to compute, such as cpu or cuda:1")
    return parser


def predict(args: Sequence[str]) -> None:
    """Run the command."""
    arguments = options().read(args)
    from fewshot.deployment.queries import number_seen, read_queries  # here: seconds

    output = Path(arguments.output)
    if output.is_dir():
        raise FewshotError(
            f"output {output} is a folder; name a file in it, such as {output / 'predictions.csv'}"
        )
    learner = loaded(arguments, arguments.device)
    predictor = learner.adapt(Path(arguments.support))
    queries = read_queries(learner.reader, Path(arguments.query), predictor.classes)
    predictions, places = judged(predictor, queries.items)
    kind = "text" if learner.reader.kind == "text" else "file"
    names = [printable(learner.reader.name(queries.items[place])) for place in places]
    labels = [queries.labels[place] for place in places]
    known = any(label is not None for label in labels)
    rows = named(predictions, arguments.reject)
    every = predictions.probabilities.tolist()
    header = [kind, "class", "probability", *(f"p({name})" for name in predictions.classes)]
    lines = [*map(_row, names, rows, every)]
    if known:
        header.append("label")
        lines = [[*line, label or ""] for line, label in zip(lines, labels, strict=True)]
    shown_on = Console(stderr=is_special(output))  # the rows alone go into a pipe
    write_table(output, [header, *lines])
    shown_on.print(
        table(
            kind,
            names,
            rows,
            f"{type(learner.module).__name__}, {len(predictions.classes)} classes",
        )
    )
    if known:
        shown_on.print(right_table(predictions.classes, labels, [name for name, _ in rows]))
        if unknown := sum(label is None for label in labels):
            shown_on.print(f"{unknown} queries lie in no folder of a class and do not count")
        if seen := number_seen(Path(arguments.support), [queries.items[place] for place in places]):
            shown_on.print(
                f"{seen} of {len(rows)} queries are in the support: expect less of new ones",
                soft_wrap=True,
            )
    if arguments.expect:
        shown_on.print(printable(predictor.expected.told(len(rows))), soft_wrap=True)
    shown_on.print(predictor.calibration, soft_wrap=True)
    shown_on.print(f"predictions: {printable(str(output))}", soft_wrap=True)


def judged(predictor: "Predictor", items: Sequence[Any]) -> tuple["Predictions", list[int]]:
    """The predictions for the items that can be read, and the places of these; others are told.

    Raises:
        FewshotError: none can be read; it says why the first cannot.
    """
    from fewshot.deployment.items import CHUNK, Predictions

    good: list[int] = []
    found: list[Predictions] = []
    faults: list[FewshotError] = []
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        try:
            found.append(predictor(chunk))
            good += range(start, start + len(chunk))
        except FewshotError:  # one by one: a fault costs its own row alone
            for place, item in enumerate(chunk, start):
                try:
                    found.append(predictor([item]))
                    good.append(place)
                except FewshotError as error:
                    faults.append(error)
    if not found:
        raise faults[0]
    for fault in faults:
        print(f"fewshot: left out: {printable(str(fault))}", file=sys.stderr)
    if faults:
        print(f"fewshot: {len(faults)} of {len(items)} queries are left out", file=sys.stderr)
    import torch

    probabilities = torch.cat([part.probabilities for part in found])
    return Predictions(found[0].classes, probabilities), good


def _row(name: str, chosen: tuple[str, float], every: Sequence[float]) -> list[str]:
    """A query's row: its name, its class, the probability of that, and of all classes."""
    return [name, chosen[0], f"{chosen[1]:.6f}", *(f"{value:.6f}" for value in every)]


def named(predictions: "Predictions", reject: float) -> list[tuple[str, float]]:
    """The class of each query and its probability; no class ("") where that is below `reject`."""
    pairs = zip(predictions.names, predictions.confidences.tolist(), strict=True)
    return [(name if probability >= reject else "", probability) for name, probability in pairs]


def table(kind: str, names: Sequence[str], rows: Sequence[tuple[str, float]], title: str) -> Table:
    """The first predictions."""
    rest, unnamed = len(rows) - SHOWN, sum(not chosen for chosen, _ in rows)
    notes = [f"{rest} more in the file"] if rest > 0 else []
    notes += [f"{unnamed} of {len(rows)} unnamed"] if unnamed else []
    overview = Table(title=title, caption="; ".join(notes) or None)
    overview.add_column(kind, overflow="fold")
    overview.add_column("class")
    overview.add_column("probability", justify="right")
    for name, (chosen, probability) in list(zip(names, rows, strict=True))[:SHOWN]:
        # brackets are no markup here
        overview.add_row(Text(name), Text(printable(chosen) or "-"), f"{100 * probability:.1f} %")
    return overview
