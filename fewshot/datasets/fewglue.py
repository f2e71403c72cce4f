"""FewGLUE: 32 training examples a task of SuperGLUE, and its validation sets; arXiv:2009.07118, 1905.00537.

Files: ``<task>/train.jsonl`` and ``unlabeled.jsonl`` of github.com/timoschick/fewglue, ``dev32.jsonl`` and
``val.jsonl`` (SuperGLUE's validation set) of github.com/THUDM/P-tuning, in SuperGLUE's form: an example a line.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from fewshot.datasets.fewglue_patterns import TASKS, GlueTask
from fewshot.errors import FewshotError, nearest

Part: TypeAlias = Literal["train", "unlabeled", "dev32", "val"]
FOLDERS = ("FewGLUE", "FewGLUE_32dev", "")
UNLABELLED = -1


class Row(NamedTuple):
    """An example: the texts that templates name, its label (-1: unlabelled), where it stands.

    `question` tells apart what is counted as one: MultiRC has an example an answer, several a question.
    """

    fields: dict[str, str]
    label: int
    where: str
    question: int
    choices: tuple[str, ...] = ()


def read_fewglue(root: Path, task: str, part: Part) -> list[Row]:
    """The examples of a task's file.

    Args:
        root: holds ``FewGLUE/`` and ``FewGLUE_32dev/``, itself or in ``fewglue/``; or the tasks' folders themselves.
        task: BoolQ, CB, COPA, MultiRC, RTE, WSC or WiC.
        part: the file's name.

    Raises:
        FewshotError: the file is missing, or a line is not an example of the task: it names file and line.
    """
    if task == "ReCoRD":
        raise FewshotError("ReCoRD cannot be run yet: it asks for one of many entities; choose another task")
    if task not in TASKS:
        raise FewshotError(f"FewGLUE has no task {task!r}{nearest(task, TASKS)}")
    places = [root / folder / sub / task / f"{part}.jsonl" for folder in ("", "fewglue") for sub in FOLDERS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        extra = "; for no unlabelled examples set data.unlabeled: 0" if part == "unlabeled" else ""
        raise FewshotError(f"{places[0]} is missing; fetch it, or set root to the folder that holds it{extra}")
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                rows += _rows(Record(line, f"{path}, line {number}", labelled=part != "unlabeled"), task, len(rows))
    except UnicodeDecodeError as error:
        raise FewshotError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); fetch it again") from error
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
            raise FewshotError(f"{where} holds no object but {self.values!r:.40}; fetch the file again")

    def get(self, name: str, kind: type) -> Any:
        """The field `name`, of this type."""
        if name not in self.values:
            raise FewshotError(f"{self.where} lacks the field {name!r}; fetch the file again")
        value = self.values[name]
        if type(value) is not kind:
            raise FewshotError(f"{self.where}: {name} is {value!r:.40}, not of type {kind.__name__}")
        return value

    def text(self, name: str, empty: bool = False) -> str:
        """A text with something in it, unless it may be `empty`, without white space around."""
        text: str = self.get(name, str).strip()
        if not text and not empty:
            raise FewshotError(f"{self.where}: {name} is empty; remove the line or fill it in")
        return text

    def label(self, labels: tuple[Any, ...]) -> int:
        """The label's place among `labels`; -1 in a file of unlabelled examples, whatever it says."""
        if not self.labelled:
            return UNLABELLED
        value = self.get("label", type(labels[0]))
        if value not in labels:
            raise FewshotError(f"{self.where}: the label {value!r} is none of {', '.join(map(repr, labels))}")
        return labels.index(value)

    def inner(self, name: str) -> "Record":
        """The object in the field `name`."""
        return Record("", self.where, self.labelled, self.get(name, dict))

    def each(self, name: str) -> Iterator["Record"]:
        """The objects in the list `name`."""
        for value in self.get(name, list):
            yield Record("", self.where, self.labelled, value)


def _rows(record: Record, name: str, before: int) -> list[Row]:
    task = TASKS[name]
    if name == "MultiRC":
        return _answers(record, task, before)
    fields, choices = READERS[name](record)
    return [Row(fields, record.label(task.labels or tuple(range(len(choices)))), record.where, before, choices)]


def _answers(record: Record, task: GlueTask, before: int) -> list[Row]:
    """MultiRC: an example an answer, some of them empty; a question's number is its first answer's."""
    rows: list[Row] = []
    passage = record.inner("passage")
    text = passage.text("text")
    for question in passage.each("questions"):
        asked, number = bare(question.text("question")), before + len(rows)
        for answer in question.each("answers"):
            fields = {"passage": text, "question": asked, "answer": answer.text("text", empty=True)}
            rows.append(Row(fields, answer.label(task.labels), answer.where, number))
    return rows


Fields: TypeAlias = tuple[dict[str, str], tuple[str, ...]]


def bare(text: str) -> str:
    """A sentence without its final mark, for templates that go on or set their own."""
    return text.rstrip(" .?!") or text


def _boolq(record: Record) -> Fields:
    return {"passage": record.text("passage"), "question": bare(record.text("question"))}, ()


def _entailment(record: Record) -> Fields:
    return {"premise": record.text("premise"), "hypothesis": bare(record.text("hypothesis"))}, ()


def _copa(record: Record) -> Fields:
    joints = {"cause": "because", "effect": "so"}
    if (question := record.text("question")) not in joints:
        raise FewshotError(f"{record.where}: question is {question!r}, neither 'cause' nor 'effect'")
    texts = {name: bare(record.text(name)) for name in ("premise", "choice1", "choice2")}
    choices = texts["choice1"], texts["choice2"]
    return {**texts, "joint": joints[question]}, choices


def _wsc(record: Record) -> Fields:
    target = record.inner("target")
    words, place = record.text("text").split(), target.get("span2_index", int)
    pronoun, noun = target.text("span2_text"), target.text("span1_text")
    if not 0 <= place < len(words):
        raise FewshotError(f"{record.where}: span2_index {place} lies outside the text of {len(words)} words")
    words[place] = f"*{words[place]}*"
    return {"text": " ".join(words), "pronoun": pronoun, "noun": noun}, ()


def _wic(record: Record) -> Fields:
    return {name: record.text(name) for name in ("word", "sentence1", "sentence2")}, ()


READERS: dict[str, Callable[[Record], Fields]] = {
    "BoolQ": _boolq,
    "CB": _entailment,
    "COPA": _copa,
    "RTE": _entailment,
    "WSC": _wsc,
    "WiC": _wic,
}
