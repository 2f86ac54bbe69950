"""Balanced L1, the paper's Fig. 5: the loss and its gradient over the error.

    python recipes/figures/fig5.py
    python recipes/figures/fig5.py --draw

Curves are those of `libra_keras.losses`, for alpha 0.2, 0.3 and 0.5 at gamma 1 as in the paper,
beside smooth L1. Gradients are TensorFlow's of these functions; none is written down here.

The paper (section 3.3, equations 7 to 9): the gradient of an inlier, with an error x below 1, is
alpha * ln(b * x + 1), which a smaller alpha raises; that of an outlier is gamma, where
alpha * ln(b + 1) = gamma, so that the gradient is continuous at 1. Smooth L1's gradient is x, then
1. Measured: the curves follow these equations within 1e-6. At an error of 0.1, gradients are
0.55, 0.39 and 0.25 for the three alphas, and 0.10 for smooth L1.
"""

import sys

import figure
import numpy as np
import style

ALPHAS = (0.2, 0.3, 0.5)
GAMMA = 1.0
LARGEST, STEPS = 1.5, 150
# Of each curve: its colour and its dashes, which tell it apart in grey, too.
LOOKS = {
    "0.2": (style.VERMILION, "-"),
    "0.3": (style.GREEN, (0, (6, 1.5))),
    "0.5": (style.BLUE, (0, (3, 1.5, 1, 1.5))),
}


def measure(options):
    """Losses and gradients of both functions, by alpha."""
    from libra_keras.losses import balanced_l1, smooth_l1

    x = np.linspace(0, LARGEST, STEPS + 1, dtype="float32")
    curves = {
        str(alpha): curve(lambda y, z, a=alpha: balanced_l1(y, z, a, GAMMA), x) for alpha in ALPHAS
    }
    return {
        "from": {"functions": ["balanced_l1", "smooth_l1"], "gamma": GAMMA, "beta": 1.0},
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
        place.set(xlabel="error  |x|", xlim=(0, LARGEST), ylim=(0, None), title=what.capitalize())
        place.set_xticks(np.arange(0, LARGEST + 0.01, 0.25))
        place.grid()
    axes[0].set_ylim(0, 1.13)
    axes[0].text(0.5, 1.02, "inliers", ha="center", va="bottom", color=style.GREY)
    axes[0].text(1.25, 1.02, "outliers", ha="center", va="bottom", color=style.GREY)
    axes[1].legend(loc="upper left", handlelength=3)
    return drawn


def _draw_curves(place, numbers, what):
    place.axvline(1.0, color=style.LIGHT, linewidth=1.2, zorder=0)
    for alpha, own in numbers["balanced_l1"].items():
        color, dashes = LOOKS[alpha]
        label = f"balanced L1, $\\alpha$ = {alpha}"
        place.plot(numbers["x"], own[what], color=color, linestyle=dashes, label=label)
    own = numbers["smooth_l1"][what]
    place.plot(numbers["x"], own, color=style.BLACK, linestyle=":", label="smooth L1")


DRAWING = figure.Drawing("fig5", __doc__, measure, draw, needs_run=False)

if __name__ == "__main__":
    sys.exit(DRAWING.main())
