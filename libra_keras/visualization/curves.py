"""A picture of a run's curves: losses, learning rate and average precision."""

import csv
import math
from pathlib import Path


def plot_curves(log: str | Path, to: str | Path) -> dict[str, list[str]]:
    """Draws what a training log contains: losses, learning rate, average precision.

    Args:
        log: path of a table: of `keras.callbacks.CSVLogger` (curves over epochs) or of
            `libra_keras.training.StepLogger` (curves over steps). `.tsv` has tabs between columns.
        to: path of the picture; its suffix says the format (`.png`, `.pdf`, `.svg`).

    Returns:
        Dict from the title of each panel to the list of the curves in it.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the table has no rows.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.visualization import plot_curves
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "log.csv").write_text(
    ...     "epoch,loss,learning_rate,val_AP,val_AP50\\n0,2.5,0.02,nan,nan\\n1,1.5,0.02,0.3,0.5\\n"
    ... )
    >>> plot_curves(folder / "log.csv", folder / "curves.png")
    {'loss': ['loss'], 'learning rate': ['learning_rate'], 'average precision': ['AP', 'AP50']}
    """
    figure_class = _figure_class()
    columns = _read(Path(log))
    axis, positions = _axis(columns)
    panels = {title: curves for title, curves in _panels(columns).items() if curves}
    figure = figure_class(figsize=(5 * len(panels), 4), layout="constrained")
    for i, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name, values in curves.items():
            points = [(x, y) for x, y in zip(positions, values, strict=True) if math.isfinite(y)]
            marker = "." if len(points) < 50 else ""  # a single point shows as a marker only
            axes.plot(*zip(*points, strict=True), label=name, marker=marker)
        axes.set(title=title, xlabel=axis)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=100)
    return {title: list(curves) for title, curves in panels.items()}


def _figure_class():
    """Matplotlib's `Figure`: used directly, it needs no display and leaves no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Curves are drawn by matplotlib. Install it with: pip install "libra-keras[viz]"'
        ) from error
    return Figure


def _read(path):
    """Returns `{column: list of floats}`; what is not a number becomes NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    if not rows:
        raise ValueError(f"Expected a training log with rows. Received: {path}")
    return {name: [_number(row[name]) for row in rows] for name in rows[0]}


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):  # "NA", or a line that was not written to its end
        return math.nan


def _axis(columns):
    if "last_step" in columns:
        return "step", columns["last_step"]
    return "epoch", [epoch + 1 for epoch in columns["epoch"]]  # Keras' log counts from 0


def _panels(columns):
    """Sorts the columns into panels; those without a single number are left out."""
    panels = {"loss": {}, "learning rate": {}, "average precision": {}}
    panels |= {"recall of proposals": {}, "positives per image": {}}
    for name, values in columns.items():
        if name in ("epoch", "first_step", "last_step") or not any(map(math.isfinite, values)):
            continue
        if name == "learning_rate":
            panels["learning rate"][name] = values
        elif name.startswith("val_AP"):
            panels["average precision"][name.removeprefix("val_")] = values
        elif name.startswith("val_AR@"):
            panels["recall of proposals"][name.removeprefix("val_")] = values
        elif name.endswith("positives"):
            panels["positives per image"][name] = values
        elif not name.startswith("val_AR"):
            panels["loss"][name] = values
    return panels
