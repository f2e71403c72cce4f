"""`fewshot predict --support DIR --query DIR`: name a user's own queries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewshot.cli.options import Options, add_checkpoint, loaded, share
from fewshot.errors import FewshotError
from fewshot.files import is_special
from fewshot.files.tables import printable, write_table

if TYPE_CHECKING:
    from fewshot.deployment.predictor import Predictions, Predictor

SHOWN = 20  # rows of the table on the screen


def options() -> Options:
    """The command's options."""
    parser = Options(
        "predict",
        "Adapt a trained learner to a few examples of each class, and name queries. Writes a CSV"
        " file with the class of each query, its probability and every class's probability, and"
        " prints a table.",
        "`fewshot predict --config FILE --ckpt_path FILE` (with the config of a run) writes the"
        " predictions for the test episodes of a benchmark instead; its options are those of"
        " `fewshot test`.",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--support",
        required=True,
        help=(
            "a folder with a folder of images for each class; for texts <class>.txt or"
            " <class>/*.txt, a text a line"
        ),
    )
    parser.add_argument(
        "--query", required=True, help="a folder of images, or one; for texts a file, a text a line"
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
    parser.add_argument("--device", default="auto", help="where to compute, such as cpu or cuda:1")
    return parser


def predict(args: Sequence[str]) -> None:
    """Run the command."""
    arguments = options().read(args)
    output = Path(arguments.output)
    if output.is_dir():
        raise FewshotError(
            f"output {output} is a folder; name a file in it, such as {output / 'predictions.csv'}"
        )
    learner = loaded(arguments, arguments.device)
    predictor = learner.adapt(Path(arguments.support))
    predictions, items = judged(predictor, learner.reader.query(Path(arguments.query)))
    kind = "text" if learner.reader.kind == "text" else "file"
    names = [printable(learner.reader.name(item)) for item in items]
    rows = named(predictions, arguments.reject)
    every = predictions.probabilities.tolist()
    header = [kind, "class", "probability", *(f"p({name})" for name in predictions.classes)]
    shown_on = Console(stderr=is_special(output))  # the rows alone go into a pipe
    write_table(output, [header, *map(_row, names, rows, every)])
    shown_on.print(
        table(
            kind,
            names,
            rows,
            f"{type(learner.module).__name__}, {len(predictions.classes)} classes",
        )
    )
    shown_on.print(f"predictions: {printable(str(output))}", soft_wrap=True)


def judged(predictor: "Predictor", items: Sequence[Any]) -> tuple["Predictions", list[Any]]:
    """The predictions for the items that can be read, and these items; others are told.

    Raises:
        FewshotError: none can be read; it says why the first cannot.
    """
    from fewshot.deployment.predictor import CHUNK, Predictions

    good: list[Any] = []
    found: list[Predictions] = []
    faults: list[FewshotError] = []
    for chunk in (items[start : start + CHUNK] for start in range(0, len(items), CHUNK)):
        try:
            found.append(predictor(chunk))
            good += chunk
        except FewshotError:  # one by one: a fault costs its own row alone
            for item in chunk:
                try:
                    found.append(predictor([item]))
                    good.append(item)
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
