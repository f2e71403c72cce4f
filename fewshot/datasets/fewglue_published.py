"""FewGLUE's patterns and words as the authors' code writes them: github.com/timoschick/pet.

They differ from those of the paper in capital letters, blanks, marks and two more patterns. There
each part of a pattern becomes pieces by itself, with a blank before it, which a template says so.
"""

from fewshot.datasets.fewglue import Row
from fewshot.datasets.fewglue_patterns import TASKS, GlueTask, Pattern

NO_YES, YES_NO, MAYBE = ("No", "Yes"), ("Yes", "No"), ("Yes", "No", "Maybe")
ENTAILMENT = (
    ' " {stripped} " ?{sep} {mask} , " {premise} "',
    " {stripped} ?{sep} {mask} , {premise}",
    ' " {stripped} " ?{sep} {mask} . " {premise} "',
    " {stripped} ?{sep} {mask} . {premise}",
)
PUBLISHED: dict[str, tuple[Pattern, ...]] = {
    "BoolQ": tuple(
        Pattern(template, words)
        for template in (
            " {passage} . Question: {whole} ? Answer: {mask} .",
            " {passage} . Based on the previous passage, {whole} ? {mask} .",
            " Based on the following passage, {whole} ? {mask} . {passage}",
        )
        for words in (NO_YES, ("false", "true"))
    ),
    "CB": (
        *(Pattern(template, MAYBE) for template in ENTAILMENT),
        Pattern(
            " {premise} question: {whole} true, false or neither? answer: {mask}",
            ("true", "false", "neither"),
        ),
    ),
    "COPA": (
        Pattern(' " {choice1} " or " {choice2} "? {premise} {link} {mask} .'),
        Pattern(" {choice1} or {choice2} ? {premise} {link} {mask} ."),
    ),
    "MultiRC": (
        Pattern(" {passage} . Question: {whole} ? Is it {answer} ? {mask} .", NO_YES),
        Pattern(
            ' {passage} . Question: {whole} ? Is the correct answer " {answer} "? {mask} .', NO_YES
        ),
        Pattern(
            " {passage} . Based on the previous passage, {whole} ?"
            ' Is " {answer} " a correct answer? {mask} .',
            NO_YES,
        ),
        Pattern(" {passage} {whole} - [ {mask} ] {answer}", ("False", "True")),
    ),
    "RTE": (
        *(Pattern(template, YES_NO) for template in ENTAILMENT),
        Pattern(" {premise} question: {whole} True or False? answer: {mask}", ("true", "false")),
    ),
    "WiC": (
        Pattern(' " {sentence1} " / " {sentence2} " Similar sense of {quoted} {mask} .', NO_YES),
        Pattern(
            " {sentence1} {sentence2} Does {word} have the same meaning in both sentences? {mask}",
            NO_YES,
        ),
        Pattern(' {word} . Sense (1) (a) " {sentence1} " ( {mask} ) " {sentence2} "', ("2", "b")),
    ),
}


def published(name: str) -> GlueTask:
    """A task with the patterns of the authors' code.

    WSC's, which say the noun itself, are left out; ReCoRD's one pattern is the query as it stands.
    """
    task = TASKS[name]
    return task._replace(patterns=PUBLISHED.get(name, task.patterns))


def lower_choices(row: Row) -> Row:
    """COPA's example whose choices begin with a small letter, as the authors' code has them."""
    first, second = (choice[:1].lower() + choice[1:] for choice in row.choices)
    fields = {**row.fields, "choice1": first, "choice2": second}
    return row._replace(fields=fields, choices=(first, second))
