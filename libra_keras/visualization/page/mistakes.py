"""The section of errors: what each kind costs, what it means, and the worst ones as pictures."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from libra_keras.visualization.page.elements import (
    Markup,
    bar,
    element,
    hint,
    joined,
    markup,
    number,
    paragraph,
    table,
)
from libra_keras.visualization.page.frame import Section

LONGEST_REASON = 300  # characters
# By kind: its name, what it is, and where to look.
KINDS = {
    "class": (
        "wrong class",
        "On an object (IoU at least 0.5), but with the wrong class.",
        "The confusion matrix shows which classes. Check that they are labelled consistently.",
    ),
    "location": (
        "wrong place",
        "On an object of its class, but the box fits badly (IoU 0.1 to 0.5).",
        "In the pictures, check that labels are tight and consistent. If the objects are small, "
        "try larger inputs: --short-side, --long-side.",
    ),
    "both": (
        "wrong class and place",
        "Touches an object of another class (IoU 0.1 to 0.5), and none of its own.",
        "Look at the pictures: parts of objects, or neighbours, that look like the class.",
    ),
    "duplicate": (
        "duplicate",
        "On an object that another detection has found already.",
        "A lower nms_iou in the settings of the last head drops more of them, but also some "
        "neighbours that overlap each other.",
    ),
    "background": (
        "background",
        "Where nothing is labelled (IoU below 0.1 with every object).",
        "Look at the pictures first: objects that nobody labelled count here. If there are none, "
        "add images of what is mistaken for objects, without boxes.",
    ),
    "missed": (
        "missed",
        "Objects without a matching detection, and without one that the kinds above explain.",
        "See sizes and crowds, and how anchors fit, below. --max-detections and the score "
        "threshold limit the output.",
    ),
}
WHOLE = {
    "false_positives": ("all wrong detections", "Dropping every wrong detection."),
    "false_negatives": ("all objects not found", "Not counting objects without a detection."),
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """An error to look at: what is said of it, and a JPEG, or why there is none."""

    kind: str
    title: str
    text: str
    file: str
    image: bytes | None
    why_not: str = ""


def errors(
    ap50: float | None, costs: Mapping[str, Mapping[str, Any]], pictures: Sequence[Picture]
) -> Section:
    """What each kind of error costs, and its worst ones."""
    gains = [costs[kind]["delta_ap50"] or 0.0 for kind in (*KINDS, *WHOLE)]
    most = max([*gains, 1e-9])
    rows = [
        [_kind(*words), costs[kind]["count"], bar(costs[kind]["delta_ap50"], "+.3f", most)]
        for kind, words in {**KINDS, **WHOLE}.items()
    ]
    body = [
        _costliest(ap50, costs),
        table(["kind", "errors", "AP50 to gain"], rows),
        hint(
            "Each number is what AP50 would gain if only errors of this kind were fixed (TIDE, "
            "Bolya et al. 2020). They do not add up: one error may hide another. Wrong "
            "detections with low scores cost little, however many there are."
        ),
        *_galleries(costs, pictures),
    ]
    return Section("errors", "Errors by kind", joined(body))


def _kind(name, what, do=""):
    return joined([name, element("div", Markup(what), " ", Markup(do), class_="words")])


def _costliest(ap50, costs):
    if ap50 is None:
        return paragraph("There is nothing to find in these data: every detection is wrong.")
    kind = max(KINDS, key=lambda name: costs[name]["delta_ap50"])
    gain = costs[kind]["delta_ap50"]
    if not gain:
        return paragraph(f"AP50 is {number(ap50)}; no kind of error costs any of it.")
    return paragraph(
        f"AP50 is {number(ap50)}. The most costly kind is “{KINDS[kind][0]}”: fixing only these "
        f"{costs[kind]['count']} errors would give {ap50 + gain:.3f}."
    )


def _galleries(costs, pictures):
    if not pictures:
        return
    yield element("h3", "The worst of each kind")
    yield Markup(
        '<p class="hint">Left: the labels (<span class="key" style="background:#2ebe6e"></span> '
        'green); right: the detections (<span class="key" style="background:#ff5a32"></span> '
        "red); the error is drawn thicker. Wrong detections come with the highest score first, "
        "missed objects with the largest.</p>"
    )
    for kind, (name, *_) in KINDS.items():
        own = [_figure(each) for each in pictures if each.kind == kind]
        if own:
            yield element("h3", f"{name}: {len(own)} of {costs[kind]['count']}")
            yield element("div", *own, class_="pictures")


def _figure(picture):
    if picture.image is None:
        reason = markup(f"{picture.file}: {picture.why_not}", LONGEST_REASON)
        shown = element("div", reason, class_="gone")
    else:
        data = base64.b64encode(picture.image).decode("ascii")
        shown = Markup(f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">')
    caption = element(
        "figcaption", element("b", picture.title), " ", picture.text, " · ", picture.file
    )
    return element("figure", shown, caption)
