"""Plots as SVG to stand inside a page: numbers in, markup out, in the colours of the page."""

import contextlib
import importlib.util
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

SIZE = 4.5, 3.0  # inches of 72 points; 432 pixels wide
PLACE = 0.17, 0.16, 0.81, 0.76  # of the axes, in shares of the figure: room for long numbers
INK = "#010203"  # stands for the colour of the page's text, which may be light or dark
# Read well on white and on black; neighbours differ in lightness or in the kind of their line too.
COLORS = "#3b82c4", "#d9822b", "#2f9e6e", "#c94f7c", "#8a6fd1", "#a89020", "#2a9fb0", "#a0674b"
STYLES = "-", "--", ":", "-."
BARS = {"color": COLORS[0], "edgecolor": INK, "linewidth": 0.3}
HOT = 0.85, 0.51, 0.17, 1.0  # red, green, blue, alpha
SHOWN = 8  # lines that eyes tell apart
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: a tenth of the size, and it can be searched
    "text.parse_math": False,  # the name of a class may have a dollar in it
    "font.family": "DejaVu Sans",  # which matplotlib brings; the page puts its own in its place
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "grid.alpha": 0.2,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
Line = tuple[Sequence[float], Sequence[float | None]]


def missing() -> str | None:
    """Says what to install where matplotlib is not; `None` where it is.

    Example:

    >>> from libra_keras.visualization import plots
    >>> plots.missing() is None or "pip install" in plots.missing()
    True
    """
    if importlib.util.find_spec("matplotlib"):
        return None
    return 'Plots require matplotlib. Install it with: pip install "libra-keras[viz]"'


def lines(
    curves: Mapping[str, Line],
    axes: tuple[str, str],
    limits: tuple[float, float] | None = None,
    diagonal: str | None = None,
) -> str:
    """Draws curves with their names.

    Args:
        curves: tuples of abscissas and ordinates by name; `None` and NaN leave a gap. The first
            is drawn thicker than the others.
        axes: names of the two axes.
        limits: of both axes, or `None` for fitting ones.
        diagonal: name of a thin line from corner to corner, or `None` without one.

    Returns:
        `<svg>` element, whose ids no other plot has.

    Raises:
        ImportError: if matplotlib is not installed.

    Example:

    >>> from libra_keras.visualization import plots
    >>> plots.lines({"loss": ([1, 2], [3.0, 2.0])}, ("step", "loss"))[:4]
    '<svg'
    """
    styles = zip(curves.items(), itertools.product(STYLES, COLORS), strict=False)
    with _figure(axes) as (figure, place):
        for (name, line), (style, color) in styles:
            x, y = (np.array(values, "float64") for values in line)
            look = {"color": color, "linewidth": 1.2 if place.lines else 2.0}
            look["marker"] = "." if np.isfinite(y).sum() < 30 else ""  # shows a single point
            place.plot(x, y, style, label=_legend_name(name), **look)
        if diagonal is not None:
            ends, name = [0, 1], _legend_name(diagonal)
            place.plot(ends, ends, color=INK, alpha=0.4, linewidth=1, label=name)
        if limits is not None:
            margin = 0.02 * (limits[1] - limits[0])
            place.set(xlim=limits, ylim=(limits[0] - margin, limits[1] + margin))
        if place.lines:
            place.legend()
        return _svg(figure)


def histogram(
    edges: Sequence[float], counts: Sequence[int], axes: tuple[str, str], is_log: bool = False
) -> str:
    """Draws counts as bars between their edges; `is_log` makes the steps of the axis factors.

    Example:

    >>> from libra_keras.visualization import plots
    >>> plots.histogram([0, 1, 2], [3, 4], ("objects", "images"))[:4]
    '<svg'
    """
    with _figure(axes) as (figure, place):
        place.bar(edges[:-1], counts, np.diff(edges), align="edge", **BARS)
        place.yaxis.get_major_locator().set_params(integer=True)
        if is_log:
            _binary_axis(place, edges)
        place.grid(axis="x", visible=False)
        return _svg(figure)


def _binary_axis(place, edges):
    """An axis whose steps are factors of two, with eight numbers at most."""
    from matplotlib.ticker import NullLocator

    place.set_xscale("log", base=2)
    ticks = [edge for edge in edges if float(np.log2(edge)).is_integer()]
    ticks = ticks[:: max(-(-len(ticks) // 8), 1)]
    place.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    place.xaxis.set_minor_locator(NullLocator())


def bars(names: Sequence[str], counts: Sequence[int], axes: tuple[str, str]) -> str:
    """Draws a bar for each name.

    Example:

    >>> from libra_keras.visualization import plots
    >>> plots.bars(["P2", "P3"], [3, 4], ("level", "objects"))[:4]
    '<svg'
    """
    with _figure(axes) as (figure, place):
        place.bar(range(len(names)), counts, **BARS)
        place.yaxis.get_major_locator().set_params(integer=True)
        place.set_xticks(range(len(names)), names)
        place.grid(axis="x", visible=False)
        return _svg(figure)


def heat(shares: Sequence[Sequence[float]]) -> str:
    """Draws a square map of shares, rows from top to bottom, as the image that they divide.

    Example:

    >>> from libra_keras.visualization import plots
    >>> plots.heat([[0.5, 0.0], [0.25, 0.25]])[:4]
    '<svg'
    """
    strength = np.asarray(shares, "float64")
    pixels = np.full((*strength.shape, 4), HOT)
    pixels[..., 3] = strength / max(strength.max(), 1e-12)
    with _figure(("left to right", "top to bottom")) as (figure, place):
        place.imshow(pixels, interpolation="nearest")
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(True)
        place.grid(visible=False)
        return _svg(figure)


@contextlib.contextmanager
def _figure(axes) -> Iterator[tuple[Any, Any]]:
    """A context in which the style of all plots holds: a figure, and its axes with names."""
    if sentence := missing():
        raise ImportError(sentence)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        place = figure.add_axes(PLACE)  # a layout that fits itself takes twice as long
        place.set(xlabel=axes[0], ylabel=axes[1])
        yield figure, place


def _legend_name(name, most=24):
    """A short name; matplotlib leaves those out that begin with a low line."""
    name = name if len(name) <= most else f"{name[: most - 1]}…"
    return f"\u200b{name}" if name.startswith("_") else name


_numbers = itertools.count()


def _svg(figure) -> str:
    """The figure as an element of a page, in the page's ink and font."""
    written: Any = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():  # the page's font draws the text, not the one measured here
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    markup = written.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<(metadata|style).*?</\1>", "", markup, flags=re.DOTALL)
    markup = re.sub(r'<g id="[^"]*"', "<g", markup)  # names of parts, the same in every figure
    markup = re.sub(r' xmlns(:\w+)?="[^"]*"', "", markup)  # which HTML knows
    markup = re.sub(r"font-family: [^;\"]*", "font-family: inherit", markup)
    markup = re.sub(r"(\.\d\d)\d{4,}", r"\1", markup)  # of a pixel
    own = f"plot{next(_numbers)}-"
    markup = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{own}", markup)
    return markup.replace(INK, "currentColor")
