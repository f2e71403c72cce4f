"""FewGLUE: 32 training examples a task of SuperGLUE, and its validation sets.

ArXiv:2009.07118, 1905.00537.

Files: ``<task>/train.jsonl`` and ``unlabeled.jsonl`` of github.com/timoschick/fewglue,
``dev32.jsonl`` and ``val.jsonl`` (SuperGLUE's validation set) of github.com/THUDM/P-tuning, in
SuperGLUE's form: an example a line.
"""

import json
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from fewshot.datasets.fewglue_files import find_file
from fewshot.datasets.fewglue_patterns import TASKS, GlueTask
from fewshot.errors import FewshotError, nearest

Part: TypeAlias = Literal["train", "unlabeled", "dev32", "val"]
UNLABELLED = -1


class Row(NamedTuple):
    """An example: the texts that templates name, its label (-1: unlabelled), where it stands.

    `question` tells apart what is counted as one: MultiRC has an example an answer, several a
    question. `worth` is what each choice is worth as an answer where several may be right: its
    exact match and its F1, both of 0 ... 1.
    """

    fields: dict[str, str]
    label: int
    where: str
    question: int
    choices: tuple[str, ...] = ()
    worth: tuple[tuple[float, float], ...] = ()


def read_fewglue(root: Path, task: str, part: Part) -> list[Row]:
    """The examples of a task's file.

    Args:
        root: holds ``FewGLUE/`` and ``FewGLUE_32dev/``, itself or in ``fewglue/``; or the tasks'
            folders themselves.
        task: BoolQ, CB, COPA, MultiRC, RTE, ReCoRD, WSC or WiC.
        part: the file's name. Of ReCoRD's ``train`` each right answer is an example, beside the
            wrong choices.

    Raises:
        FewshotError: the file is missing, or a line is not an example of the task: it names file
            and line.
    """
    if task not in TASKS:
        raise FewshotError(f"FewGLUE has no task {task!r}{nearest(task, TASKS)}")
    path = find_file(root, task, part)
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                record = Record(line, f"{path}, line {number}", labelled=part != "unlabeled")
                rows += _rows(record, task, len(rows), alone=part == "train")
    except UnicodeDecodeError as error:
        raise FewshotError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); fetch it again"
        ) from error
    if not rows:
        raise FewshotError(f"{path} holds no example; fetch it again")
    return rows


class Record:
    """A line of a file, whose wrong fields are told with their place."""

    def __init__(self, line: str, where: str, labelled: bool, values: Any = None) -> None:
        self.where, self.labelled = where, labelled
        try:
            self.values = json.loads(line) if values is None else values
        except json.JSONDecodeError as error:
            raise FewshotError(f"{where} is no JSON ({error.msg}); fetch the file again") from error
        if not isinstance(self.values, dict):
            raise FewshotError(
                f"{where} holds no object but {self.values!r:.40}; fetch the file again"
            )

    def get(self, name: str, kind: type) -> Any:
        """The field `name`, of this type."""
        if name not in self.values:
            raise FewshotError(f"{self.where} lacks the field {name!r}; fetch the file again")
        value = self.values[name]
        if type(value) is not kind:
            raise FewshotError(
                f"{self.where}: {name} is {value!r:.40}, not of type {kind.__name__}"
            )
        return value

    def text(self, name: str, empty: bool = False) -> str:
        """A text with something in it, unless it may be `empty`, without white space around."""
        text: str = self.get(name, str).strip()
        if not text and not empty:
            raise FewshotError(f"{self.where}: {name} is empty; remove the line or fill it in")
        return text

    def label(self, labels: tuple[Any, ...]) -> int:
        """The label's place among `labels`.

        -1 in a file of unlabelled examples, whatever it says.
        """
        if not self.labelled:
            return UNLABELLED
        value = self.get("label", type(labels[0]))
        if value not in labels:
            raise FewshotError(
                f"{self.where}: the label {value!r} is none of {', '.join(map(repr, labels))}"
            )
        return labels.index(value)

    def inner(self, name: str) -> "Record":
        """The object in the field `name`."""
        return Record("", self.where, self.labelled, self.get(name, dict))

    def each(self, name: str) -> Iterator["Record"]:
        """The objects in the list `name`."""
        for value in self.get(name, list):
            yield Record("", self.where, self.labelled, value)


def _rows(record: Record, name: str, before: int, alone: bool) -> list[Row]:
    task = TASKS[name]
    if name == "MultiRC":
        return _answers(record, task, before)
    if name == "ReCoRD":
        return _entities(record, before, alone)
    fields, choices = READERS[name](record)
    return [
        Row(
            fields,
            record.label(task.labels or tuple(range(len(choices)))),
            record.where,
            before,
            choices,
        )
    ]


def _answers(record: Record, task: GlueTask, before: int) -> list[Row]:
    """MultiRC: an example an answer, some of them empty.

    A question's number is its first answer's.
    """
    rows: list[Row] = []
    passage = record.inner("passage")
    text = passage.text("text")
    for question in passage.each("questions"):
        question_text, number = question.text("question"), before + len(rows)
        for answer in question.each("answers"):
            fields = {
                "passage": text,
                "question": bare(question_text),
                "whole": question_text,
                "answer": answer.text("text", empty=True),
            }
            rows.append(Row(fields, answer.label(task.labels), answer.where, number))
    return rows


PLACEHOLDER = "@placeholder"


def _entities(record: Record, before: int, alone: bool) -> list[Row]:
    """ReCoRD: which of the passage's entities the placeholder stands for.

    Several may be right, unless left `alone`.
    """
    rows: list[Row] = []
    passage = record.inner("passage")
    text = passage.text("text")
    # the end included
    spans = [(span.get("start", int), span.get("end", int)) for span in passage.each("entities")]
    if wrong := [
        span for span in spans if not 0 <= span[0] <= span[1] < len(passage.values["text"])
    ]:
        raise FewshotError(
            f"{record.where}: the entity {wrong[0]} lies outside the passage of {len(text)}"
            " characters"
        )
    choices = tuple(dict.fromkeys(passage.values["text"][start : end + 1] for start, end in spans))
    for qa in record.each("qas"):
        query, number = qa.text("query"), before + len(rows)
        if PLACEHOLDER not in query or not choices:
            raise FewshotError(
                f"{record.where}: no {PLACEHOLDER} in the query, or no entity in the passage"
            )
        opening, _, rest = query.partition(PLACEHOLDER)
        fields = {
            "passage": text.replace("\n@highlight\n", "\n- "),
            "before": opening.strip(),
            "after": rest,
        }
        if not record.labelled:
            rows.append(Row(fields, UNLABELLED, record.where, number, choices))
            continue
        worth = answer_worth(choices, [answer.text("text") for answer in qa.each("answers")])
        right = [i for i, (exact, _) in enumerate(worth) if exact]
        if not right:
            raise FewshotError(
                f"{record.where}: no answer is an entity of the passage; fetch the file again"
            )
        for label in right if alone else right[:1]:
            left = [i for i in range(len(choices)) if not alone or i == label or i not in right]
            kept, values = tuple(choices[i] for i in left), tuple(worth[i] for i in left)
            rows.append(Row(fields, left.index(label), record.where, number, kept, values))
    return rows


def answer_worth(choices: Sequence[str], answers: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Exact match and F1 of words of each choice with the best of the answers, both in [0, 1].

    SQuAD's (arXiv:1606.05250).
    """
    from torchmetrics.functional.text import squad  # here: it takes seconds

    truth: dict[str, str | dict[str, list[str] | list[int]]]
    truth = {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": ""}
    scores = (
        [squad({"prediction_text": choice, "id": ""}, truth) for choice in choices]
        if answers
        else []
    )
    return tuple((float(score["exact_match"]) / 100, float(score["f1"]) / 100) for score in scores)


Fields: TypeAlias = tuple[dict[str, str], tuple[str, ...]]


def stripped(text: str) -> str:
    """A sentence without any marks at its end, as the authors' code has them."""
    return text.rstrip(string.punctuation) or text


def bare(text: str) -> str:
    """A sentence without its final mark, for templates that go on or set their own."""
    return text.rstrip(" .?!") or text


def _boolq(record: Record) -> Fields:
    passage, whole = record.text("passage"), record.text("question")
    return {"passage": passage, "question": bare(whole), "whole": whole}, ()


def _entailment(record: Record) -> Fields:
    whole = record.text("hypothesis")
    forms = {"hypothesis": bare(whole), "stripped": stripped(whole), "whole": whole}
    return {"premise": record.text("premise"), **forms}, ()


def _copa(record: Record) -> Fields:
    joints, links = {"cause": "because", "effect": "so"}, {"cause": "because", "effect": ", so"}
    if (question := record.text("question")) not in joints:
        raise FewshotError(
            f"{record.where}: question is {question!r}, neither 'cause' nor 'effect'"
        )
    texts = {name: bare(record.text(name)) for name in ("premise", "choice1", "choice2")}
    choices = texts["choice1"], texts["choice2"]
    return {**texts, "joint": joints[question], "link": links[question]}, choices


def mirror_image(row: Row) -> Row:
    """COPA's example with its two choices exchanged."""
    first, second = row.choices
    fields = {**row.fields, "choice1": second, "choice2": first}
    label = row.label if row.label == UNLABELLED else 1 - row.label
    return row._replace(fields=fields, choices=(second, first), label=label)


def _wsc(record: Record) -> Fields:
    target = record.inner("target")
    words, place = record.text("text").split(), target.get("span2_index", int)
    pronoun, noun = target.text("span2_text"), target.text("span1_text")
    if not 0 <= place < len(words):
        raise FewshotError(
            f"{record.where}: span2_index {place} lies outside the text of {len(words)} words"
        )
    words[place] = f"*{words[place]}*"
    return {"text": " ".join(words), "pronoun": pronoun, "noun": noun}, ()


def _wic(record: Record) -> Fields:
    fields = {name: record.text(name) for name in ("word", "sentence1", "sentence2")}
    return {**fields, "quoted": f'"{fields["word"]}"?'}, ()


READERS: dict[str, Callable[[Record], Fields]] = {
    "BoolQ": _boolq,
    "CB": _entailment,
    "COPA": _copa,
    "RTE": _entailment,
    "WSC": _wsc,
    "WiC": _wic,
}
