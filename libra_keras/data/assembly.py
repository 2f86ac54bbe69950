"""The last step of readers for files other than COCO's JSON: from examples to a data set."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from libra_keras.data.checks import clean
from libra_keras.data.examples import DetectionData, Example, coco_annotations
from libra_keras.data.findings import Finding, Written, in_unit_range

NO_BOXES = np.zeros((0, 4), "float32"), np.zeros(0, "int32"), np.zeros(0, bool)


@dataclasses.dataclass(frozen=True, slots=True)
class WrittenBox:
    """A box as written in a file."""

    name: str  # what findings call it
    label: str
    text: str
    corners: tuple[float, ...]
    problem: str | None = None  # why it has no corners


def with_boxes(
    images: Iterable[tuple[Example, list[WrittenBox]]], class_names: Sequence[str]
) -> tuple[list[Example], Written, list[Finding]]:
    """Gives images their boxes: examples, what the file says of them, and findings on others."""
    examples, every, findings = [], [], []
    numbers = {name: label for label, name in enumerate(class_names)}
    expected = f"one of {', '.join(class_names):.400}"
    for image, boxes in images:
        kept = []
        for box in boxes:
            if box.problem:
                finding = "not a number", box.problem
            elif box.label not in numbers:
                finding = "class", f"{box.label!r:.80} is not {expected}"
            else:
                kept.append(box)
                continue
            findings.append(Finding(finding[0], str(image.file), box.name, finding[1]))
        every.append(kept)
        with np.errstate(over="ignore"):  # infinite is found
            corners = np.array([box.corners for box in kept], "float32").reshape(-1, 4)
        examples.append(
            dataclasses.replace(
                image,
                boxes=corners,
                labels=np.array([numbers[box.label] for box in kept], "int32"),
                ignore=np.zeros(len(kept), bool),
            )
        )
    written = Written(
        lambda image, box: every[image][box].name,
        lambda image, box: f"({every[image][box].text})",
        are_fractions=in_unit_range([n for kept in every for box in kept for n in box.corners]),
    )
    return examples, written, findings


def assembled(
    name: str,
    class_names: Sequence[str],
    examples: list[Example],
    written: Written,
    findings: Iterable[Finding] = (),
    skip_bad: bool = False,
    check_files: bool = True,
    counts: dict[str, int] | None = None,
    warnings: Iterable[Finding] = (),
    headers_checked: bool = False,
) -> DetectionData:
    """Cleans examples and makes a data set of them; `warnings` drop no image and no box.

    If the headers of all files have been read to make the examples, they are not read again.
    """
    if twice := [own for own, count in collections.Counter(class_names).items() if count > 1]:
        raise ValueError(f"{name}: names of classes must differ. Received twice: {twice!r:.80}")
    check = check_files and not headers_checked
    examples, cleaned, found = clean(
        examples, class_names, written, list(findings), skip_bad, check, name
    )
    annotations = coco_annotations(examples, class_names)
    ids = tuple(category["id"] for category in annotations["categories"])
    every = {**cleaned, **(counts or {})}
    return DetectionData(
        name,
        tuple(class_names),
        ids,
        examples,
        annotations,
        counts={what: number for what, number in every.items() if number},
        findings=[*found, *warnings],
        headers_checked=check_files or headers_checked,
    )
