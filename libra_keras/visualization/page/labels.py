"""The section of label statistics, as `evaluation.label_statistics` returns them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from libra_keras.visualization import plots
from libra_keras.visualization.page.elements import (
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
from libra_keras.visualization.page.quality import MOST_CLASSES


def labels(found: Mapping[str, Any]) -> Section:
    """Classes, sizes, places, and how they suit the detector."""
    counts = {"images": found["images"], "without objects": found["empty_images"]}
    counts |= {"objects": found["objects"], "crowds or difficult": found["ignored"]}
    body = [facts({name: f"{count:,}" for name, count in counts.items()}, "numbers")]
    if not found["objects"]:
        return Section(
            "labels", "Labels", joined([*body, paragraph("There is no box to learn from.")])
        )
    body += [advice(found["advice"]), drawn(*_figures(found)), _percentiles(found), _classes(found)]
    if found["anchors"]:
        body += [_anchors(found["anchors"])]
    return Section("labels", "Labels", joined(body))


def _figures(found):
    """Captions, and functions that draw."""
    boxes, sizes, ratios = found["an_image"], found["input_sides"], found["ratios"]
    yield (
        "Objects per image",
        partial(plots.bars, _ranges(boxes["edges"]), boxes["counts"], ("objects", "images")),
    )
    yield (
        "Size of the objects: square root of the area, in pixels of the model's input",
        partial(_histogram, sizes, ("pixels", "objects")),
    )
    yield (
        "Shape of the objects: height over width",
        partial(_histogram, ratios, ("height / width", "objects")),
    )
    yield "Where in the image the objects' centres lie", partial(plots.heat, found["centres"])
    if found["roi_levels"]:
        names = [str(level + 1) for level in range(len(found["roi_levels"]))]
        yield (
            "Level of the pyramid that the second stage reads; 1 is the finest",
            partial(plots.bars, names, found["roi_levels"], ("level", "objects")),
        )
    if found["anchors"]:
        fit = found["anchors"]["iou"]
        yield (
            "Overlap (IoU) of the objects with their best anchors",
            partial(plots.histogram, fit["edges"], fit["counts"], ("IoU", "objects")),
        )


def _histogram(distribution, axes):
    """The part of it that is not empty."""
    counts, edges = distribution["counts"], distribution["edges"]
    filled = [i for i, count in enumerate(counts) if count]
    first, last = filled[0], filled[-1] + 1
    return plots.histogram(edges[first : last + 1], counts[first:last], axes, is_log=True)


def _ranges(edges):
    """Names of bins of whole numbers: `2-4`; the last is open."""
    limits = [int(edge) for edge in edges]
    names = [
        f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        for low, high in zip(limits, limits[1:], strict=False)
    ]
    return [*names[:-1], f"{limits[-2]}+"]


def _percentiles(found):
    rows = {
        "objects in an image": (found["an_image"], "g"),
        "side, pixels of the file": (found["sides"], ".1f"),
        "side, pixels of the model's input": (found["input_sides"], ".1f"),
        "height over width": (found["ratios"], ".2f"),
    }
    names = {"0": "least", "50": "median", "100": "most"}
    places = list(found["sides"]["percentiles"])
    return table(
        ["", *(names.get(place, f"{place} %") for place in places)],
        (
            [name, *(number(each["percentiles"][place], form) for place in places)]
            for name, (each, form) in rows.items()
        ),
    )


def _classes(found):
    ranked = sorted(found["classes"], key=lambda row: -row["objects"])
    shown = ranked[:MOST_CLASSES]
    most = max(row["objects"] for row in ranked)
    rows = [(row["name"], bar(row["objects"], ",d", most), row["images"]) for row in shown]
    inner = table(["class", "objects", "images"], rows)
    few = [row["name"] for row in ranked if row["objects"]]
    told = f"{len(few)} of {len(ranked)} classes have objects"
    return element("details", element("summary", f"Objects by class ({told})"), inner)


def _anchors(fit):
    rows = [
        (number(each["stride"], "g"), number(each["side"], ".0f"), number(each["ratio"], ".2g"))
        + (bar(each["objects"], ",d", max(max(e["objects"] for e in fit["best"]), 1)),)
        for each in fit["best"]
    ]
    inputs = [
        (
            f"{each['short_side']} × {each['long_side']}",
            bar(each["below_0.5"], ".0%"),
            bar(each["below_0.3"], ".0%"),
        )
        for each in fit["inputs"]
    ]
    return joined(
        [
            element("h3", "Objects that no anchor fits, by size of the input"),
            table(["--short-side × --long-side", "IoU below 0.5", "IoU below 0.3"], inputs),
            hint(
                "IoU is that with the best anchor: the lower it is, the less is learnt from an "
                "object, if anything. The first row is the current size."
            ),
            element(
                "details",
                element("summary", "Which anchor fits how many objects best"),
                table(["stride", "side, pixels", "height / width", "objects"], rows),
            ),
        ]
    )
