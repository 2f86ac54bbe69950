"""The section of a run's curves: losses, learning rate and metrics over steps."""

import csv
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from libra_keras.visualization import plots
from libra_keras.visualization.page.elements import advice, drawn, joined, paragraph
from libra_keras.visualization.page.frame import Section

Table = Mapping[str, Sequence[float]]
MOST_POINTS = 400  # of a curve; more are not seen
PANELS = {"Losses": "loss", "Learning rate": "learning rate"}
PANELS |= {"Metrics on the validation data": "value", "Positives an image": "boxes"}


def training(steps: Table, epochs: Table, steps_per_epoch: int, warnings: Sequence[str]) -> Section:
    """Curves of `steps.csv` and of `log.csv`, as `read_table` returns them."""
    panels: dict[str, dict[str, plots.Line]] = {title: {} for title in PANELS}
    for name, values in steps.items():
        if panel := _panel(name):
            panels[panel][name] = _thinned(steps["last_step"], values)
    places = [(epoch + 1) * steps_per_epoch for epoch in epochs.get("epoch", [])]
    for name, values in epochs.items():
        if name in ("val_AP", "val_AP50", "val_AP_small") or name.startswith("val_AR@"):
            panels["Metrics on the validation data"][name.removeprefix("val_")] = places, values
    drawable = {title: lines for title, lines in panels.items() if _has_numbers(lines)}
    figures = [
        (title, partial(plots.lines, _with_loss_first(lines), ("step", PANELS[title])))
        for title, lines in drawable.items()
    ]
    shown = drawn(*figures) if figures else paragraph("There is no log of the training.")
    return Section("training", "Training", joined([advice(warnings), shown]))


def read_table(path: Path) -> dict[str, list[float]]:
    """Columns of a table of numbers by name; what is no number is NaN, and no file is no column."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):  # "NA", or a line that was not written to its end
        return math.nan


def _panel(name):
    if name == "learning_rate":
        return "Learning rate"
    if name.endswith("positives"):
        return "Positives an image"
    return "Losses" if name.endswith("loss") else None


def _thinned(places, values):
    every = -(-len(values) // MOST_POINTS)
    return places[::every], values[::every]


def _has_numbers(lines):
    return any(math.isfinite(value) for _, values in lines.values() for value in values)


def _with_loss_first(lines):
    """The sum of the losses, or AP, comes first, which is drawn thicker."""
    return dict(sorted(lines.items(), key=lambda item: item[0] not in ("loss", "AP")))
