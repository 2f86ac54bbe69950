"""Boxes that the second stage learns from, in one photograph: the paper's Fig. 6.

    python recipes/figures/fig6.py RUN DATA [--image NAME] [--preset mmdet]
    python recipes/figures/fig6.py --draw

Both samplers draw once from the same candidates, with the same keys, as many boxes as the run has
learned from. The balanced one takes positives evenly over the objects and negatives evenly over
three bins of IoU.
"""

import sys

import figure
import numpy as np
import style
from fig3 import PRESETS
from matplotlib.lines import Line2D

PRESET = "paper_text"
LOOKS = {
    "negatives": {"edgecolor": style.VERMILION, "linewidth": 1.0},
    "positives": {"edgecolor": style.BLUE, "linewidth": 1.8},
}
LIMIT = 0.5  # of the IoU of negatives


def add_arguments(parser):
    """Which photograph, and which sampler is called balanced."""
    add = parser.add_argument
    add("--image", help="default: the one whose objects differ most in size")
    add("--preset", default=PRESET, choices=PRESETS, help="default: %(default)s")


def measure(options):
    """The boxes that two samplers draw, with their kind and their IoU with an object."""
    import subject

    from libra_keras.samplers import CombinedSampler, RandomSampler

    model, data, origin = subject.opened(options)
    photo = subject.chosen(model, data, options.image)
    found = subject.candidates(model, photo)
    own = model.box_head.sampler
    sizes = (own.num, own.positive_fraction, own.max_negatives_per_positive)
    samplers = {
        "random": RandomSampler(*sizes),
        "balanced": CombinedSampler.preset(options.preset, *sizes),
    }
    return {
        "from": {**origin, "preset": options.preset},
        "photograph": photo.record,
        "candidates": {
            "positives": int(np.sum(np.asarray(found.match.is_positive))),
            "negatives": len(found.negatives),
        },
        "samples": {name: sample(found, sampler) for name, sampler in samplers.items()},
    }


def sample(found, sampler):
    """What a sampler draws of the candidates: their boxes, which are positive, their IoU."""
    import subject

    indices, is_positive = subject.drawn(found, sampler)
    return {
        "boxes": figure.rounded(found.boxes[indices], 1),
        "is_positive": is_positive.tolist(),
        "iou": figure.rounded(found.iou[indices], 3),
        "objects": len(np.unique(np.asarray(found.match.matched_gt)[0, indices[is_positive]])),
        "thirds": np.histogram(found.iou[indices[~is_positive]], 3, (0, LIMIT))[0].tolist(),
    }


def draw(numbers):
    """The photograph twice, under either sample."""
    drawn = style.figure(3.75)
    for place, (name, own) in zip(drawn.subplots(1, 2), numbers["samples"].items(), strict=True):
        style.show_photograph(place, numbers["photograph"], fade=0.35)
        boxes, is_positive = np.array(own["boxes"]), np.array(own["is_positive"], bool)
        for kind, look in LOOKS.items():
            style.show_boxes(place, boxes[is_positive == (kind == "positives")], **look)
        objects, thirds = len(numbers["photograph"]["boxes"]), " / ".join(map(str, own["thirds"]))
        place.set_title(
            f"{name}: positives of {own['objects']} of {objects} objects,\n"
            f"{thirds} negatives by thirds of IoU 0 to {LIMIT}"
        )
    handles = [Line2D([], [], color=look["edgecolor"], label=kind) for kind, look in LOOKS.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=2)
    return drawn


DRAWING = figure.Drawing("fig6", __doc__, measure, draw, add_arguments)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
