"""The section of a run's curves: losses, learning rate and metrics over steps."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from libra_keras.visualization import plots
from libra_keras.visualization.curves import Curve
from libra_keras.visualization.page.elements import advice, drawn, joined, paragraph
from libra_keras.visualization.page.frame import Section

MOST_POINTS = 400  # of a curve; more are not seen
FIRST = "loss", "AP"  # drawn thicker: the sum of the losses, and what they are for


def training(
    axis: str, panels: Mapping[str, Mapping[str, Curve]], warnings: Sequence[str]
) -> Section:
    """Curves of a training, as `curves.read_panels` returns them, and what looked wrong with it."""
    figures = [
        (title.capitalize(), partial(plots.lines, _lines(curves), (axis, "")))
        for title, curves in panels.items()
    ]
    shown = drawn(*figures) if figures else paragraph("There is no log of the training.")
    return Section("training", "Training", joined([advice(warnings), shown]))


def _lines(curves):
    """Abscissas and ordinates; the most important curve first."""
    ordered = sorted(curves.items(), key=lambda item: item[0] not in FIRST)
    return {
        name: tuple(zip(*points[:: math.ceil(len(points) / MOST_POINTS)], strict=True))
        for name, points in ordered
    }
