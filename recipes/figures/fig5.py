"""Balanced L1, the paper's Fig. 5: the loss and its gradient over the error.

    python recipes/figures/fig5.py
    python recipes/figures/fig5.py --draw

Curves are those of `libra_keras.losses`: alpha 0.2, 0.3 and 0.5 at gamma 1, the default of alpha
0.5 and gamma 1.5, and smooth L1. Gradients are TensorFlow's of these functions; none is written
down here.
"""

import functools
import sys

import figure
import numpy as np
import style

LARGEST, STEPS = 1.5, 150
DEFAULT = (0.5, 1.5)
# Of each curve, by alpha and gamma: its colour and its dashes, which tell it apart in grey, too.
LOOKS = {
    (0.2, 1.0): (style.VERMILION, "-"),
    (0.3, 1.0): (style.GREEN, (0, (6, 1.5))),
    (0.5, 1.0): (style.BLUE, (0, (3, 1.5, 1, 1.5))),
    DEFAULT: (style.PINK, (0, (8, 1.5, 1, 1.5, 1, 1.5))),
}


def measure(options):
    """Losses and gradients of both functions."""
    from libra_keras.losses import balanced_l1, smooth_l1

    x = np.linspace(0, LARGEST, STEPS + 1, dtype="float32")
    curves = [
        {"alpha": a, "gamma": g, **curve(functools.partial(balanced_l1, alpha=a, gamma=g), x)}
        for a, g in LOOKS
    ]
    return {
        "from": {"functions": ["balanced_l1", "smooth_l1"], "beta": 1.0},
        "x": figure.rounded(x, 6),
        "balanced_l1": curves,
        "smooth_l1": curve(smooth_l1, x),
    }


def curve(loss, x):
    """Values of a loss at errors `x`, and its slopes there."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = loss(tf.zeros_like(x), x)
    slopes = tape.gradient(values, x)
    return {"loss": figure.rounded(values, 6), "gradient": figure.rounded(slopes, 6)}


def draw(numbers):
    """The gradient and the loss, side by side."""
    drawn = style.figure(3.3)
    axes = drawn.subplots(1, 2)
    for place, what in zip(axes, ("gradient", "loss"), strict=True):
        _draw_curves(place, numbers, what)
        place.set(xlabel="error  |x|", title=f"Balanced L1: {what}")
        place.set(xlim=(0, LARGEST), ylim=(0, None), xticks=np.arange(0, LARGEST + 0.01, 0.25))
        place.grid()
    axes[0].set_ylim(0, 1.7)
    for middle, name in ((0.5, "inliers"), (1.25, "outliers")):
        axes[0].text(middle, 1.54, name, ha="center", va="bottom", color=style.GREY)
    axes[1].legend(loc="upper left", handlelength=3)
    return drawn


def _draw_curves(place, numbers, what):
    place.axvline(1.0, color=style.LIGHT, linewidth=1.2, zorder=0)
    for own in numbers["balanced_l1"]:
        key = own["alpha"], own["gamma"]
        color, dashes = LOOKS[key]
        label = "$\\alpha$ = {}, $\\gamma$ = {:g}".format(*key)
        label += ", the default" if key == DEFAULT else ""
        place.plot(numbers["x"], own[what], color=color, linestyle=dashes, label=label)
    own = numbers["smooth_l1"][what]
    place.plot(numbers["x"], own, color=style.BLACK, linestyle=":", label="smooth L1")


DRAWING = figure.Drawing("fig5", __doc__, measure, draw, needs_run=False)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
