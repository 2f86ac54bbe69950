"""Sections that say how good a detector is: metrics, curves, confusion, parts, calibration."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from libra_keras.visualization import plots
from libra_keras.visualization.page.elements import (
    Markup,
    advice,
    bar,
    drawn,
    element,
    facts,
    hint,
    joined,
    number,
    paragraph,
    table,
)
from libra_keras.visualization.page.frame import Section

MOST_CLASSES = 200  # rows of a table
MATRIX = 20  # classes that are all shown at once, their confusion as a matrix
PAIRS = 20  # of classes, where there are more
WORST = 10  # classes that are shown first, where there are more
SIZES = {
    "all": "all",
    "small": "small (up to 32 × 32)",
    "medium": "medium (up to 96 × 96)",
    "large": "large",
}


def summary(metrics: Mapping[str, float], notes: Sequence[str] = ()) -> Section:
    """All metrics but those of single classes, and what must be known about them."""
    overall = {name: number(value) for name, value in metrics.items() if "/" not in name}
    ap = (
        "AP is COCO's: the mean over ten thresholds of overlap (IoU 0.50 to 0.95) and over the "
        "classes; AP50 and AP75 are those at one threshold. "
    )
    explained = hint(
        f"{ap if 'AP' in overall else ''}AR is the recall with this many boxes per image, the "
        "mean over overlaps (IoU) of 0.50 to 0.95. Sizes are areas in pixels of the image files. "
        "A dash: nothing to find."
    )
    return Section(
        "metrics", "Metrics", joined([advice(notes), facts(overall, "numbers"), explained])
    )


def by_class(
    names: Sequence[str],
    objects: Sequence[int],
    metrics: Mapping[str, float],
    curves: Mapping[str, Any],
    f1: Mapping[str, Any],
) -> Section:
    """A row for each class, with its best threshold, and the curves of the classes."""
    order = sorted(range(len(names)), key=lambda k: -objects[k])
    shown = sorted(order[:MOST_CLASSES])
    rows = {k: _class_row(k, names, objects, metrics, curves, f1) for k in shown}
    body = [
        _threshold_sentence(f1["all"]["best"]),
        _class_curves(names, order[: plots.SHOWN - 1], curves, f1),
        *_class_tables(rows, {k: metrics.get(f"AP/{names[k]}", math.nan) for k in shown}),
        hint(
            "F1 is the harmonic mean of precision and recall at IoU 0.5; the best threshold is "
            "the minimum score that gives the highest F1."
        ),
    ]
    if len(names) > len(shown):
        body += [
            hint(f"The {len(names) - len(shown)} classes with the fewest objects are left out.")
        ]
    return Section("classes", "Classes and thresholds", joined(body))


def _class_tables(rows, ap):
    """All rows; of many the worst first, and the others where they are asked for."""
    headings = ["class", "objects", "AP", "AP50", "best threshold", "F1", "precision", "recall"]
    if len(rows) <= MATRIX:
        return [table(headings, rows.values())]
    measured = [k for k in rows if not math.isnan(ap[k])]
    worst = [rows[k] for k in sorted(measured, key=ap.get)[:WORST]]
    whole = element("details", element("summary", "All classes"), table(headings, rows.values()))
    return [element("h3", "Lowest AP"), table(headings, worst), whole]


def _class_row(k, names, objects, metrics, curves, f1):
    best = f1["classes"][k]["best"] or {}
    precision = [value for value in curves["precision"][k] if value is not None]
    ap50 = float(np.mean(precision)) if precision else None
    columns = (number(best.get(name)) for name in ("threshold", "f1", "precision", "recall"))
    return [names[k], objects[k], bar(metrics.get(f"AP/{names[k]}")), bar(ap50), *columns]


def _threshold_sentence(best):
    if best is None:
        return paragraph("There is no threshold to recommend: no detection, or nothing to find.")
    return paragraph(
        f"With one threshold for all classes, F1 is highest, {best['f1']:.3f}, for detections with "
        f"a score of at least {best['threshold']:.2f}: {best['precision']:.0%} of them are right, "
        f"and they find {best['recall']:.0%} of the objects. (Every object counts once here, in AP "
        "every class.)"
    )


def _class_curves(names, chosen, curves, f1):
    """Precision over recall, and F1 over the threshold, of the classes with most objects."""
    recall, scores = curves["recall"], f1["thresholds"]
    precision = {"mean of all classes": (recall, curves["mean"])}
    precision |= {names[k]: (recall, curves["precision"][k]) for k in chosen}
    harmonic = {"all classes": (scores, f1["all"]["f1"])}
    harmonic |= {names[k]: (scores, f1["classes"][k]["f1"]) for k in chosen}
    precision, harmonic = _with_numbers(precision), _with_numbers(harmonic)
    some = f", the {len(chosen)} classes with the most objects" if len(chosen) < len(names) else ""
    figures = [
        (f"Precision at each recall, IoU 0.5{some}", precision, ("recall", "precision")),
        (f"F1 by threshold{some}", harmonic, ("lowest score", "F1")),
    ]
    return drawn(
        *(
            (caption, partial(plots.lines, lines, axes, (0, 1)))
            for caption, lines, axes in figures
            if lines
        )
    )


def _with_numbers(lines):
    return {name: line for name, line in lines.items() if any(v is not None for v in line[1])}


def confusion(found: Mapping[str, Any], names: Sequence[str]) -> Section:
    """Which class was taken for which: a matrix, or the pairs that are confused most."""
    counts = np.array(found["counts"])
    said = hint(
        f"Detections with a score of at least {found['threshold']:.2f}, IoU 0.5. Rows are what an "
        "object is, columns what it was taken for; the last column counts objects that were not "
        "found, the last row detections without an object."
    )
    shown = _matrix(counts, names) if len(names) <= MATRIX else _pairs(counts, names)
    return Section(
        "confusion", "Confusion of classes", joined([_worst_pair(counts, names), said, shown])
    )


def _worst_pair(counts, names):
    wrong = counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return paragraph("No object was taken for one of another class.")
    row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
    total = counts[row].sum()
    return element(
        "p",
        Markup("Most often confused: "),
        element("b", names[row]),
        Markup(" taken for "),
        element("b", names[column]),
        Markup(f", {wrong[row, column]} of {total} objects ({wrong[row, column] / total:.0%})."),
    )


def _matrix(counts, names):
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    head = element("tr", *(element("th", name) for name in ("", *names, "not found")))
    rows = []
    for name, line, share in zip(
        (*names, "no object"), counts.tolist(), shares.tolist(), strict=True
    ):
        cells = (
            element("td", value or "", class_="cell", style=Markup(f"--share:{part:.3f}"))
            for value, part in zip(line, share, strict=True)
        )
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    return element("div", element("table", head, *rows), class_="scroll", tabindex="0")


def _pairs(counts, names):
    wrong = counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    rows = [
        (names[i], names[j], wrong[i, j], bar(wrong[i, j] / counts[i].sum(), ".0%"))
        for i, j in pairs
        if wrong[i, j]
    ]
    return table(["class", "taken for", "times", "of its objects"], rows)


def parts(by_size: Mapping[str, Any], by_crowding: Mapping[str, Any]) -> Section:
    """AP of objects by their size, and of images by how many objects they show."""
    names = "AP", "AP50", "AP75"
    sizes = [
        (SIZES[name], part["objects"], *(bar(part[each]) for each in names))
        for name, part in by_size.items()
    ]
    crowds = [
        (name, part["images"], part["objects"], *(bar(part[each]) for each in names))
        for name, part in by_crowding.items()
        if part["images"]
    ]
    body = [
        element("h3", "By the size of the object"),
        table(["pixels of the file", "objects", *names], sizes),
        element("h3", "By the number of objects in the image"),
        table(["objects in it", "images", "objects", *names], crowds),
        hint(
            "Means cover only classes that have objects, so rows with few objects may rest on "
            "few classes."
        ),
    ]
    return Section("parts", "Sizes and crowds", joined(body))


def calibration(found: Mapping[str, Any]) -> Section:
    """Scores against the share of the detections that are right."""
    filled = [each for each in found["bins"] if each["count"]]
    if not filled:
        return Section("calibration", "Calibration of scores", paragraph("There is no detection."))
    counts = np.array([each["count"] for each in filled])
    score, right = (
        float(np.average([each[name] for each in filled], weights=counts))
        for name in ("score", "precision")
    )
    word = "more" if score > right else "less"
    said = paragraph(
        f"The {counts.sum()} detections have a mean score of {score:.2f}, and {right:.0%} of them "
        f"are right at IoU 0.5: on the whole, scores promise {word} than they deliver. On average "
        f"they are {found['expected_error']:.3f} away from the share that is right (expected "
        "calibration error)."
    )
    line = {"this detector": ([b["score"] for b in filled], [b["precision"] for b in filled])}
    draw = partial(plots.lines, line, ("score", "share that is right"), (0, 1), "score = share")
    rows = [
        (f"{b['low']:.1f} to {b['high']:.1f}", b["count"], number(b["score"]), bar(b["precision"]))
        for b in filled
    ]
    columns = ["scores", "detections", "mean score", "share that is right"]
    body = [
        said,
        drawn(("Reliability of scores: above the thin line they promise too little", draw)),
    ]
    body += [element("details", element("summary", "The same as a table"), table(columns, rows))]
    return Section("calibration", "Calibration of scores", joined(body))
