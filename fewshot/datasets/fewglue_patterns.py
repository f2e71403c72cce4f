"""FewGLUE's tasks as tables: labels, metrics, PET's patterns and verbalisers.

Sources: arXiv:2001.07676, arXiv:2009.07118.

A template is text with places in braces: a field of the example, ``{mask}`` for what the model is
to say, ``{choice}`` for a candidate, ``{sep}`` between two segments. `words` are the verbaliser, a
word a label, each one piece of the tokenizer; a pattern without them is answered by the example's
own choices, of any number of pieces.
"""

from typing import Any, NamedTuple


class Pattern(NamedTuple):
    """A pattern and its verbaliser; without `words` the choices are said themselves."""

    template: str
    words: tuple[str, ...] = ()


class GlueTask(NamedTuple):
    """A task: labels as in its files, SuperGLUE's metrics, plain text for a classifier, patterns.

    `labels` are empty where an example brings its own choices, whose number is `way`; None where it
    differs.
    """

    labels: tuple[Any, ...]
    metrics: tuple[str, ...]
    plain: str
    patterns: tuple[Pattern, ...]
    way: int | None = 2


NO_YES, FALSE_TRUE = ("no", "yes"), ("false", "true")

TASKS: dict[str, GlueTask] = {
    "BoolQ": GlueTask(
        (False, True),
        ("accuracy",),
        "{question}{sep}{passage}",
        tuple(
            Pattern(template, words)
            for words in (NO_YES, FALSE_TRUE)
            for template in (
                "{passage}. Question: {question}? Answer: {mask}.",
                "{passage}. Based on the previous passage, {question}? {mask}.",
                "Based on the following passage, {question}? {mask}. {passage}",
            )
        ),
    ),
    "CB": GlueTask(
        ("entailment", "contradiction", "neutral"),
        ("accuracy", "f1_macro"),
        "{premise}{sep}{hypothesis}",
        tuple(
            Pattern(template, ("yes", "no", "maybe"))
            for template in (
                "{hypothesis}?{sep}{mask}, {premise}",
                '"{hypothesis}"?{sep}{mask}, "{premise}"',
                "{hypothesis}?{sep}{mask}. {premise}",
                '"{hypothesis}"?{sep}{mask}. "{premise}"',
            )
        ),
        way=3,
    ),
    "COPA": GlueTask(
        (),
        ("accuracy",),
        "{premise}, {joint} {choice}.",
        (
            Pattern('"{choice1}" or "{choice2}"? {premise}, {joint} {mask}.'),
            Pattern("{choice1} or {choice2}? {premise}, {joint} {mask}."),
        ),
    ),
    "MultiRC": GlueTask(
        (0, 1),
        ("f1a", "em", "accuracy"),
        "{passage}{sep}{question} {answer}",
        (
            Pattern("{passage}. Question: {question}? Is it {answer}? {mask}.", NO_YES),
            Pattern(
                '{passage}. Question: {question}? Is the correct answer "{answer}"? {mask}.', NO_YES
            ),
            Pattern(
                '{passage}. By the passage, {question}? Is "{answer}" a correct answer? {mask}.',
                NO_YES,
            ),
        ),
    ),
    "RTE": GlueTask(
        ("entailment", "not_entailment"),
        ("accuracy",),
        "{premise}{sep}{hypothesis}",
        (
            *(
                Pattern(template, ("yes", "no"))
                for template in (
                    "{hypothesis}?{sep}{mask}, {premise}",
                    '"{hypothesis}"?{sep}{mask}, "{premise}"',
                    "{hypothesis}?{sep}{mask}. {premise}",
                    '"{hypothesis}"?{sep}{mask}. "{premise}"',
                )
            ),
            Pattern(
                "{premise} Question: {hypothesis}. True or false? Answer: {mask}.",
                ("true", "false"),
            ),
        ),
    ),
    # One pattern, the query itself: the paper has no other, and distils nothing here.
    "ReCoRD": GlueTask(
        (),
        ("accuracy", "f1"),
        "{passage} {before} {choice}{after}",
        (Pattern("{passage} {before} {mask}{after}"),),
        way=None,
    ),
    # PET writes the noun itself into the mask; a yes or no does without its special training on
    # true examples alone.
    "WSC": GlueTask(
        (False, True),
        ("accuracy",),
        "{text}{sep}{pronoun}{sep}{noun}",
        (
            Pattern(
                "{text} In the previous sentence, does {pronoun} refer to {noun}? {mask}.", NO_YES
            ),
            Pattern(
                '{text} Question: is "{pronoun}" the same as "{noun}"? Answer: {mask}.', NO_YES
            ),
            Pattern("{text} The pronoun {pronoun} refers to {noun}: {mask}.", FALSE_TRUE),
        ),
    ),
    "WiC": GlueTask(
        (False, True),
        ("accuracy",),
        "{word}{sep}{sentence1}{sep}{sentence2}",
        (
            Pattern('"{sentence1}" / "{sentence2}". Similar sense of "{word}"? {mask}.', NO_YES),
            Pattern(
                "{sentence1} {sentence2} Does {word} have the same meaning in both sentences?"
                " {mask}",
                NO_YES,
            ),
            Pattern('{word}. Sense (1) (a) "{sentence1}" ({mask}) "{sentence2}"', ("2", "b")),
        ),
    ),
}
