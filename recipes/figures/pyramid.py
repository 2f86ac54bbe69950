"""The levels of a pyramid before and after balancing, for one photograph.

    python recipes/figures/pyramid.py RUN DATA [--image NAME]
    python recipes/figures/pyramid.py --draw

Each map is the norm of the features at each position, from its own smallest (dark) to its largest
value (bright). Below the photograph is the refined average, at the size of the middle level, as it
is added to every level. The cosine is that between the features of two levels, brought to this
size, over all positions and pairs of levels.
"""

import sys

import figure
import numpy as np
import style


def add_arguments(parser):
    """Which photograph."""
    parser.add_argument("--image", help="default: the one whose objects differ most in size")


def measure(options):
    """Maps of the levels' norms, and how alike levels are."""
    import subject

    model, data, origin = subject.opened(options)
    photo = subject.chosen(model, data, options.image)
    names, before, after, layer = subject.pyramids(model, photo)
    middle = layer.refine_level
    both = {"before": before, "after": after}
    return {
        "from": origin,
        "photograph": photo.record,
        "names": names,
        "similarity": {
            when: round(similarity(subject.at_one_size(levels, middle)), 4)
            for when, levels in both.items()
        },
        **{when: [norms(level) for level in levels] for when, levels in both.items()},
        "added": norms(np.asarray(after[middle]) - np.asarray(before[middle])),
    }


def norms(level):
    """The norm over the channels at each position: hundredths of its range, and that range."""
    values = np.linalg.norm(np.asarray(level, "float32")[0], axis=-1)
    low, high = float(values.min()), float(values.max())
    parts = np.round(100 * (values - low) / max(high - low, 1e-12)).astype(int)
    return {"low": round(low, 4), "high": round(high, 4), "map": parts.tolist()}


def similarity(levels):
    """The mean cosine between two levels of one size, over all positions and pairs."""
    flat = [np.asarray(level, "float64").reshape(-1, level.shape[-1]) for level in levels]
    units = [own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12) for own in flat]
    pairs = [(a, b) for i, a in enumerate(units) for b in units[:i]]
    return float(np.mean([np.sum(a * b, axis=1).mean() for a, b in pairs]))


def draw(numbers):
    """Photograph and what is added at the left; the levels before and after in two rows."""
    names = numbers["names"]
    drawn = style.figure(2.65)
    places = drawn.subplots(2, len(names) + 1)
    style.show_photograph(places[0, 0], numbers["photograph"])
    places[0, 0].set_title("photograph")
    _draw_map(places[1, 0], numbers, numbers["added"], "what is added")
    for row, when in enumerate(("before", "after")):
        for place, name, own in zip(places[row, 1:], names, numbers[when], strict=True):
            _draw_map(place, numbers, own, f"{name} {when}")
        cosine = numbers["similarity"][when]
        places[row, 3].set_xlabel(f"mean cosine between levels {when}: {cosine:.2f}")
    return drawn


def _draw_map(place, numbers, own, title):
    style.show_map(place, np.array(own["map"]), numbers["photograph"])
    place.set_title(title)


DRAWING = figure.Drawing("pyramid", __doc__, measure, draw, add_arguments)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
