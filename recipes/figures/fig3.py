"""Overlaps of hard negatives and of those that samplers draw: the paper's Fig. 3.

    python recipes/figures/fig3.py RUN [DATA] --weights kept-0.5
    python recipes/figures/fig3.py --draw

Hard negatives are the quarter of an image's negatives with the largest classification losses, as a
detector in the middle of its training has them (`runs.train(config, keep_at=(0.5,))`). Beside them
is what `RandomSampler` and the presets of `IoUBalancedSampler` draw from the same candidates.
"""

import sys

import figure
import numpy as np
import style

ABOVE = 0.05  # of IoU: where the paper divides
BINS = 10
HARD = 0.25  # of an image's negatives: those of the largest classification losses
PAPER = {"hard": 0.6, "random": 0.3}  # shares above
PRESETS = ("mmdet", "paper_code", "paper_text")
LABELS = {"hard": "hard negatives", "random": "random sampling"}
LOOKS = {
    "random": (style.BLACK, ":", "o"),
    "mmdet": (style.VERMILION, "-", "s"),
    "paper_code": (style.GREEN, "--", "D"),
    "paper_text": (style.BLUE, "-.", "^"),
}


def add_arguments(parser):
    """How many images, and how often each sampler draws from one."""
    parser.add_argument(
        "--images", type=int, default=200, help="maximum number of images; default: %(default)s"
    )
    parser.add_argument(
        "--draws", type=int, default=10, help="draws per image; default: %(default)s"
    )


def measure(options):
    """The distribution of IoU of each group of negatives, over all images."""
    import subject

    model, data, origin = subject.opened(options)
    limit = model.box_head.settings.positive_iou
    samplers = samplers_like(model.box_head.sampler)
    overlaps = {group: [] for group in ("hard", *samplers)}
    num = min(options.images, len(data))
    for i in range(num):
        found = subject.candidates(model, subject.photograph(model, data, i))
        for group, iou in overlaps_of(found, samplers, options.draws, i).items():
            overlaps[group].append(iou)
    own = model.box_head.sampler
    return {
        "from": {**origin, "images": num, "draws": options.draws},
        "sampled": {"num": own.num, "positive_fraction": own.positive_fraction},
        "edges": figure.rounded(np.linspace(0, limit, BINS + 1), 4),
        "groups": {
            group: distribution(np.concatenate(iou), limit) for group, iou in overlaps.items()
        },
        "paper": PAPER,
    }


def samplers_like(own):
    """Samplers of as many boxes as the detector's own, at random and balanced over IoU."""
    from libra_keras.samplers import IoUBalancedSampler, RandomSampler

    sizes = (own.num, own.positive_fraction, own.max_negatives_per_positive)
    balanced = {name: IoUBalancedSampler.preset(name, *sizes) for name in PRESETS}
    return {"random": RandomSampler(*sizes), **balanced}


def overlaps_of(found, samplers, draws, image):
    """The IoU of the hard negatives of an image, and of those that each sampler draws."""
    import subject

    negatives = found.negatives
    hard = negatives[hardest(found.losses[negatives])]
    result = {"hard": found.iou[hard]}
    for name, sampler in samplers.items():
        indices, is_positive = subject.drawn(found, sampler, image, draws)
        result[name] = found.iou[indices[~is_positive]]
    return result


def hardest(losses):
    """Positions of the largest quarter of losses."""
    count = int(np.ceil(HARD * len(losses)))
    return np.argsort(-losses, kind="stable")[:count]


def distribution(iou, limit):
    """How many there are, the share above 0.05, that of exactly 0, and those of the bins."""
    counts, _ = np.histogram(iou, bins=BINS, range=(0, limit))
    return {
        "boxes": len(iou),
        "above": round(float(np.mean(iou > ABOVE)), 4),
        "zero": round(float(np.mean(iou == 0)), 4),
        "shares": figure.rounded(counts / len(iou), 4),
    }


def draw(numbers):
    """The distributions, and beside them the shares above 0.05."""
    drawn = style.figure(3.6)
    left, right = drawn.subplots(1, 2, width_ratios=(1.75, 1))
    _draw_distributions(left, numbers)
    _draw_shares(right, numbers)
    return drawn


def _draw_distributions(place, numbers):
    edges, groups = np.array(numbers["edges"]), numbers["groups"]
    hard = 100 * np.array(groups["hard"]["shares"])
    place.bar(edges[:-1], hard, np.diff(edges), align="edge", color=style.LIGHT, edgecolor="white")
    centres = (edges[:-1] + edges[1:]) / 2
    for group, (color, dashes, marker) in LOOKS.items():
        shares = 100 * np.array(groups[group]["shares"])
        place.plot(centres, shares, color=color, linestyle=dashes, marker=marker, markersize=4.5)
    place.set(xlim=(0, edges[-1]), ylim=(0, None), xlabel="largest IoU with an object")
    place.set(ylabel="% of the boxes", title="IoU of negatives")
    place.grid(axis="y")


def _draw_shares(place, numbers):
    rows = list(numbers["groups"])
    for row, group in enumerate(rows):
        share = 100 * numbers["groups"][group]["above"]
        color, _, marker = LOOKS.get(group, (style.LIGHT, "", ""))
        ink = "white" if marker else style.BLACK
        place.barh(row, share, 0.62, color=color)
        place.plot(5, row, marker=marker, color=ink, markersize=4.5)
        place.text(10, row, f"{share:.0f} %", va="center", color=ink)
    for group, share in numbers["paper"].items():
        ends = np.array([-0.42, 0.42]) + rows.index(group)
        place.plot([100 * share] * 2, ends, color=style.PINK, linewidth=3.5)
    place.plot([], [], color=style.PINK, linewidth=3.5, label="the paper, on COCO")
    place.set_yticks(range(len(rows)), [LABELS.get(group, group) for group in rows])
    place.set(xlim=(0, 100), xticks=range(0, 101, 25), title=f"Share with IoU > {ABOVE}")
    place.invert_yaxis()
    place.tick_params(axis="y", length=0)
    place.set_xlabel("% of the boxes")
    place.legend(loc="lower right", bbox_to_anchor=(1.04, -0.33))


DRAWING = figure.Drawing("fig3", __doc__, measure, draw, add_arguments)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
