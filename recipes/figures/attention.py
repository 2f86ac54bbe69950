"""Where the non-local block of a balanced pyramid looks from a point of a photograph.

    python recipes/figures/attention.py RUN DATA [--image NAME] [--point X Y ...]
    python recipes/figures/attention.py --draw

A map is a row of the block's softmax: the weights of all cells of the averaged pyramid for the cell
in which the point lies, in multiples of the mean weight. Outlines are the annotated objects. Each
map has its own scale, in which colours grow with the square root of the weight.
"""

import sys

import figure
import numpy as np
import style
from matplotlib import patheffects
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

NAMES = "ABCDEF"


def add_arguments(parser):
    """Which photograph, and which points of it."""
    parser.add_argument("--image", help="default: the one whose objects differ most in size")
    parser.add_argument(
        "--point",
        nargs=2,
        type=float,
        action="append",
        metavar=("X", "Y"),
        help="in pixels of the photograph; repeat for more; default: the centres of its largest "
        "and its smallest object",
    )


def measure(options):
    """The attention of the cells in which the points lie."""
    import subject

    model, data, origin = subject.opened(options)
    photo = subject.chosen(model, data, options.image)
    found = subject.pyramids(model, photo)
    points = [(x * photo.scale, y * photo.scale) for x, y in options.point or ()]
    points = points or extremes(photo.boxes)
    maps = attention(found.layer, found.average, points, photo.batch["images"].shape[1:3])
    return {
        "from": origin,
        "photograph": photo.record,
        "points": figure.rounded(points, 1),
        "uniform": round(1 / maps[0].size, 8),
        "maps": [figure.rounded(own, 7) for own in maps],
    }


def attention(layer, average, points, padded):
    """The weights `(H, W)` with which each point's cell looks at all cells.

    Raises:
        ValueError: if what refines the average has no attention.
    """
    if not hasattr(layer.refiner, "attention"):
        raise ValueError(
            "RUN must be the run of a detector whose balanced pyramid has a non-local block"
        )
    shape = average.shape[1:3]
    rows = np.asarray(layer.refiner.attention(average))[0]
    return [rows[cell(point, padded, shape)].reshape(shape) for point in points]


def extremes(boxes):
    """The centres of the largest and of the smallest box."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return [tuple(centres[i].tolist()) for i in (np.argmax(areas), np.argmin(areas))]


def cell(point, padded, shape):
    """The position, row by row, of the cell of a map in which a point (x, y) lies."""
    column = min(int(point[0] * shape[1] / padded[1]), shape[1] - 1)
    row = min(int(point[1] * shape[0] / padded[0]), shape[0] - 1)
    return row * shape[1] + column


def draw(numbers):
    """The photograph with its points, and the map of each; all with the objects' outlines."""
    photo, points = numbers["photograph"], numbers["points"]
    drawn = style.figure(2.75)
    first, *others = drawn.subplots(1, 1 + len(points))
    style.show_photograph(first, photo)
    first.set_title("photograph")
    for name, point, own, place in zip(NAMES, points, numbers["maps"], others, strict=False):
        times = np.array(own) / numbers["uniform"]
        image = style.show_map(place, times, photo, norm=PowerNorm(0.5, vmin=0))
        bar = drawn.colorbar(image, ax=place, location="bottom", ticks=MaxNLocator(3))
        bar.set_label("times the mean weight")
        place.set_title(f"attention from {name}")
        style.show_boxes(place, photo["boxes"], edgecolor="white", linewidth=0.6, alpha=0.7)
        for each in (first, place):
            _mark(each, point, name)
    return drawn


def _mark(place, point, name):
    place.plot(*point, marker="o", markersize=7, color="white", markeredgecolor=style.BLACK)
    outline = [patheffects.withStroke(linewidth=2.5, foreground=style.BLACK)]
    place.annotate(
        name,
        point,
        xytext=(6, 4),
        textcoords="offset points",
        weight="bold",
        color="white",
        path_effects=outline,
    )


DRAWING = figure.Drawing("attention", __doc__, measure, draw, add_arguments)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
