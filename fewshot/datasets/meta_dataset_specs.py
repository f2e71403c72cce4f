"""Meta-Dataset's published specifications: each source's classes by split, images, groups.

The files ``<source>_dataset_spec.json`` of https://github.com/google-research/meta-dataset
(Apache-2.0), folder ``meta_dataset/dataset_conversion/dataset_specs``.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot.episodes.broad_sampling import MAX_LEAVES, MIN_WAYS, Groups
from fewshot.errors import FewshotError

SPLITS = {"train": "TRAIN", "val": "VALID", "test": "TEST"}
SPECS_FROM = (
    "https://github.com/google-research/meta-dataset"
    " (meta_dataset/dataset_conversion/dataset_specs, Apache-2.0)"
)


class Spec(NamedTuple):
    """What is published of a source.

    Args:
        images: how many images each class has, by split and class, in the published order.
        groups: the groups of classes of each split that has classes; members are places in
            `images[split]`.
    """

    images: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, Groups]


def read_spec(path: Path) -> Spec:
    """The specification in a published file: of a flat source, of Omniglot, or of ImageNet.

    Raises:
        FewshotError: the file is missing or damaged, or names classes that it does not describe.
    """
    try:
        content = json.loads(path.read_text())
        if "split_subgraphs" in content:
            return _hierarchical(content)
        return _bilevel(content) if "superclasses_per_split" in content else _flat(content)
    except FileNotFoundError as error:
        raise FewshotError(f"there is no {path}; get it from {SPECS_FROM}") from error
    except KeyError as error:
        raise FewshotError(
            f"{path} names the class {error} and does not describe it; get the published file"
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FewshotError(
            f"{path} is no specification of Meta-Dataset ({error}); get it from {SPECS_FROM}"
        ) from error


def _flat(content: Mapping[str, Any]) -> Spec:
    """Class ids run through train, val and test in this order."""
    images, start = {}, 0
    for split, key in SPLITS.items():
        end = start + content["classes_per_split"][key]
        ids = [str(number) for number in range(start, end)]
        images[split] = {
            content["class_names"][i]: int(content["images_per_class"][i]) for i in ids
        }
        start = end
    return Spec(images, {split: Groups([np.arange(len(of))]) for split, of in images.items() if of})


def _bilevel(content: Mapping[str, Any]) -> Spec:
    """Superclasses run through the splits in this order, and classes through the superclasses."""
    images: dict[str, dict[str, int]] = {}
    groups, superclass, number = {}, 0, 0
    for split, key in SPLITS.items():
        images[split], members = {}, []
        for _ in range(content["superclasses_per_split"][key]):
            size, first = content["classes_per_superclass"][str(superclass)], len(images[split])
            for _ in range(size):
                name = content["class_names"][str(number)]
                images[split][name] = int(content["images_per_class"][str(number)])
                number += 1
            members.append(np.arange(first, first + size))
            superclass += 1
        groups[split] = Groups(members)
    return Spec(images, groups)


def _hierarchical(content: Mapping[str, Any]) -> Spec:
    images, groups = {}, {}
    for split, key in SPLITS.items():
        children = {
            node["wn_id"]: list(node["children_ids"]) for node in content["split_subgraphs"][key]
        }
        leaves = sorted(node for node, below in children.items() if not below)
        images[split] = {leaf: int(content["images_per_class"][key][leaf]) for leaf in leaves}
        groups[split] = Groups(spanned(children, leaves), whole=True)
    return Spec(images, groups)


def spanned(children: Mapping[str, Sequence[str]], leaves: Sequence[str]) -> list[Any]:
    """The places in `leaves` below each node of a hierarchy that episodes are drawn from.

    Those are the nodes above 5 to 392 leaves; a node with one child only stands for that child, and
    does not count.

    Args:
        children: names of the children of each node of an acyclic graph, none of a leaf.
        leaves: names of the leaves.
    """
    place = {leaf: number for number, leaf in enumerate(leaves)}

    @cache
    def below(node: str) -> frozenset[int]:
        if node in place:
            return frozenset([place[node]])
        return frozenset().union(*(below(child) for child in children[node]))

    nodes = sorted(node for node, of in children.items() if len(of) > 1)
    spans = [sorted(below(node)) for node in nodes]
    return [np.array(span) for span in spans if MIN_WAYS <= len(span) <= MAX_LEAVES]
