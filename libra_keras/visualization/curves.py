"""A picture of a run's curves: losses, learning rate and average precision."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libra_keras.files.reading import explained, read_text

# In their order on the picture: the learning rate lies below the losses.
TITLES = "loss", "average precision", "recall of proposals", "learning rate", "positives per image"
NOISY = "loss", "positives per image"
SMOOTHED = 50  # stretches that a noisy curve is to have
Curve = list[tuple[float, float]]


def plot_curves(
    log: str | Path, to: str | Path, epochs: str | Path | None = None
) -> dict[str, list[str]]:
    """Draws what a training log contains: losses, learning rate, average precision.

    If there are many rows, they are drawn pale, with the means over a fiftieth of the rows on top.

    Args:
        log: path of a table: of `keras.callbacks.CSVLogger` (curves over epochs) or of
            `libra_keras.training.StepLogger` (curves over steps). `.tsv` has tabs between columns.
        to: path of the picture; its suffix selects the format (`.png`, `.pdf`, `.svg`).
        epochs: path of the run's table of `CSVLogger` beside one of `StepLogger`, or `None`: its
            validation metrics are drawn at the last steps of its epochs, which are equally long.

    Returns:
        Dict from the title of each panel to the list of the curves in it.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a table has no rows, or `epochs` is given beside a table of epochs.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.visualization import plot_curves
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "log.csv").write_text(
    ...     "epoch,loss,learning_rate,val_AP,val_AP50\\n0,2.5,0.02,nan,nan\\n1,1.5,0.02,0.3,0.5\\n"
    ... )
    >>> plot_curves(folder / "log.csv", folder / "curves.png")
    {'loss': ['loss'], 'average precision': ['AP', 'AP50'], 'learning rate': ['learning_rate']}
    """
    figure_class = _figure_class()
    axis, panels = read_panels(Path(log), None if epochs is None else Path(epochs))
    figure = draw_panels(figure_class, axis, panels)
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=100)
    return {title: list(curves) for title, curves in panels.items()}


def read_panels(log: Path, epochs: Path | None = None) -> tuple[str, dict[str, dict[str, Curve]]]:
    """Returns the name of the axis, and the curves of each panel by their names."""
    with explained(log):
        columns = _read(log)
        axis, places = _axis(columns)
        panels = _panels(columns, places)
    if epochs is not None:
        if axis != "step":
            raise ValueError(f"`epochs` requires a table of steps. Received: log={log}")
        with explained(log):
            # The last row of an epoch tells its steps, unless it reaches into the next epoch.
            ends = zip(places, _column(columns, "epoch"), strict=True)
            steps = max((step / epoch for step, epoch in ends if epoch > 0), default=1.0)
        with explained(epochs):
            found = {k: v for k, v in _read(epochs).items() if k == "epoch" or k[:4] == "val_"}
            measured = _panels(found, [steps * n for n in _axis(found)[1]])
        for title, curves in measured.items():
            panels[title] |= curves
    return axis, {title: curves for title, curves in panels.items() if curves}


def draw_panels(figure_class: Any, axis: str, panels: dict[str, dict[str, Curve]]) -> Any:
    """Returns a figure of panels, two in a row, with the same axis below all of them."""
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    figure = figure_class(figsize=(6 * columns, 3.5 * rows), layout="constrained")
    first = None
    for i, (title, curves) in enumerate(panels.items()):
        axes = first = figure.add_subplot(rows, columns, i + 1, sharex=first)
        for number, (name, points) in enumerate(curves.items()):
            _draw(axes, name, points, f"C{number}", is_smoothed=title in NOISY)
        axes.set(title=title, xlabel=axis)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def _draw(axes, name, points, color, is_smoothed):
    xs, ys = zip(*points, strict=True)
    width = len(ys) // SMOOTHED if is_smoothed else 0
    if width > 1:
        axes.plot(xs, ys, color=color, alpha=0.25, linewidth=0.8)
        ys = means(ys, width)
    marker = "." if len(xs) < 50 else ""  # a single point shows as a marker only
    thick = 2.2 if name in ("loss", "AP") else 1.4
    axes.plot(xs, ys, label=name, color=color, marker=marker, linewidth=thick)


def means(values: Sequence[float], width: int) -> list[float]:
    """Returns the means over so many values around each, over fewer at the ends."""
    before, behind = width // 2, (width - 1) // 2
    windows = (values[max(0, i - before) : i + behind + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _figure_class():
    """Matplotlib's `Figure`: used directly, it needs no display and leaves no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Curves require matplotlib. Install it with: pip install "libra-keras[viz]"'
        ) from error
    return Figure


def _read(path):
    """Returns `{column: list of floats}`; what is not a number becomes NaN."""
    lines = io.StringIO(read_text(path), newline="")
    table = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    rows = list(table)
    if not rows:
        raise ValueError(f"Expected a training log with rows. Received: {path}")
    return {name: [_number(row[name]) for row in rows] for name in table.fieldnames or ()}


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):  # "NA", or a line that was not written to its end
        return math.nan


def _axis(columns):
    if "last_step" in columns:
        return "step", columns["last_step"]
    return "epoch", [epoch + 1 for epoch in _column(columns, "epoch")]  # Keras' log counts from 0


def _column(columns, name):
    if name not in columns:
        raise ValueError(f"it has no column {name!r}, only {', '.join(columns):.80}")
    return columns[name]


def _panels(columns, places):
    """Sorts the columns into panels; those without a single number are left out."""
    panels: dict[str, dict[str, Curve]] = {title: {} for title in TITLES}
    for name, values in columns.items():
        pairs = zip(places, values, strict=True)
        points = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
        if name in ("epoch", "first_step", "last_step") or not points:
            continue
        if name == "learning_rate":
            panels["learning rate"][name] = points
        elif name.startswith("val_AP"):
            panels["average precision"][name.removeprefix("val_")] = points
        elif name.startswith("val_AR@"):
            panels["recall of proposals"][name.removeprefix("val_")] = points
        elif name.endswith("positives"):
            panels["positives per image"][name] = points
        elif not name.startswith("val_AR"):
            panels["loss"][name] = points
    return panels
