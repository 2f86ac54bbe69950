"""What numbers of a run say about its health: sentences with a number and what to do.

Every function returns `None` where there is nothing to say.
"""

import numpy as np

DROWNING = 0.9  # of the loss, in one of several terms
FALLEN = 0.98  # of the first steps' loss: above it, nothing has been learnt
LOW_RECALL = 0.5
UNUSUAL = 4.0  # times the rate that is known to work
POOR_FIT = 0.5  # overlap of an object with its best anchor; and the share of such objects


def drowning_term(losses):
    """Says which of several losses leaves nothing to the others.

    Args:
        losses: dict from names to means over an epoch.

    Example:

    >>> from libra_keras.runs.advice import drowning_term
    >>> print(drowning_term({"class_loss": 19.0, "box_loss": 1.0}))
    class_loss is 95% of the loss (19 of 20): the other terms hardly steer the training. Look at \
the annotations with libra-keras check-data, and if it has grown, lower --learning-rate
    >>> drowning_term({"class_loss": 0.6, "box_loss": 0.4})
    """
    total = sum(losses.values())
    if len(losses) < 2 or not total > 0:
        return None
    name = max(losses, key=losses.get)
    if losses[name] <= DROWNING * total:
        return None
    return (
        f"{name} is {losses[name] / total:.0%} of the loss ({losses[name]:.3g} of {total:.3g}): "
        "the other terms hardly steer the training. Look at the annotations with libra-keras "
        "check-data, and if it has grown, lower --learning-rate"
    )


def stalled_loss(first, last):
    """Says that the loss does not fall.

    Args:
        first: float, its mean over the first steps of the run.
        last: float, its mean over the last steps.

    Example:

    >>> from libra_keras.runs.advice import stalled_loss
    >>> print(stalled_loss(first=2.0, last=2.1))
    The loss does not fall: 2 in the first steps of the run, 2.1 in the last of this epoch. Try a \
third of --learning-rate, and look at the annotations with libra-keras check-data; if the rate \
is small already, a larger one
    >>> stalled_loss(first=2.0, last=1.5)
    """
    if not last > FALLEN * first:
        return None
    return (
        f"The loss does not fall: {first:.3g} in the first steps of the run, {last:.3g} in the "
        "last of this epoch. Try a third of --learning-rate, and look at the annotations with "
        "libra-keras check-data; if the rate is small already, a larger one"
    )


def few_positives(name, per_image):
    """Says that hardly any box is learnt from.

    Args:
        name: str, of the count: `"positives"`, or `"rpn_positives"` of the first stage.
        per_image: float, the count's mean over an epoch.

    Example:

    >>> from libra_keras.runs.advice import few_positives
    >>> print(few_positives("rpn_positives", 0.25))
    rpn_positives: 0.25 an image, so hardly any object is learnt from. Are there boxes, in pixels, \
in most images? libra-keras check-data counts them; images without objects can be left out
    >>> few_positives("rpn_positives", 12.0)
    """
    if not per_image < 1:
        return None
    return (
        f"{name}: {per_image:.2g} an image, so hardly any object is learnt from. Are there boxes, "
        "in pixels, in most images? libra-keras check-data counts them; images without objects "
        "can be left out"
    )


def low_recall(recall, images):
    """Says that the first stage misses most objects.

    Args:
        recall: float, the share of objects that a proposal overlaps by half; NaN if unknown.
        images: int, on how many it was measured.

    Example:

    >>> from libra_keras.runs.advice import low_recall
    >>> print(low_recall(0.3, images=8))
    Proposals cover 30% of the objects of 8 validation images: the second stage never sees the \
others. Train longer; if it stays so, give small objects more pixels (--short-side), or anchors \
of their size
    >>> low_recall(0.9, images=8)
    """
    if not recall < LOW_RECALL:
        return None
    return (
        f"Proposals cover {recall:.0%} of the objects of {images} validation images: the second "
        "stage never sees the others. Train longer; if it stays so, give small objects more "
        "pixels (--short-side), or anchors of their size"
    )


def high_rate(rate, usual):
    """Says that a learning rate is far above the usual one.

    Args:
        rate: float.
        usual: float, the default for the same images an update, or `None` if there is none.

    Example:

    >>> from libra_keras.runs.advice import high_rate
    >>> print(high_rate(rate=0.1, usual=0.0025))
    --learning-rate 0.1 is 40 times the default for so many images (0.0025): if the loss grows or \
is not finite, this is why
    >>> high_rate(rate=0.005, usual=0.0025)
    """
    if usual is None or not rate > UNUSUAL * usual:
        return None
    return (
        f"--learning-rate {rate:g} is {rate / usual:.3g} times the default for so many images "
        f"({usual:g}): if the loss grows or is not finite, this is why"
    )


def unfitting_anchors(sizes, anchors):
    """Says that anchors have not the sizes of the objects.

    Args:
        sizes: float `(M, 2)`, widths and heights of objects in pixels of the resized images.
        anchors: float `(A, 2)`, widths and heights of the anchors.

    Example:

    >>> from libra_keras.runs.advice import unfitting_anchors
    >>> print(unfitting_anchors([[10, 10], [12, 8], [40, 40]], [[32, 32], [64, 64]]))
    67% of the objects overlap no anchor by half, wherever it lies: their median side is 9.9 \
pixels in the resized image, and anchors measure 32 to 64. Change --short-side and --long-side, \
or the anchors' scales
    >>> unfitting_anchors([[30, 30]], [[32, 32]])
    """
    sizes, anchors = np.asarray(sizes, "float64"), np.asarray(anchors, "float64")
    misfits = sizes[best_overlaps(sizes, anchors) < POOR_FIT]
    if not len(misfits) > POOR_FIT * len(sizes):
        return None
    sides = np.sqrt(np.prod(anchors, -1))
    return (
        f"{len(misfits) / len(sizes):.0%} of the objects overlap no anchor by half, wherever it "
        f"lies: their median side is {np.median(np.sqrt(np.prod(misfits, -1))):.3g} pixels in the "
        f"resized image, and anchors measure {sides.min():.3g} to {sides.max():.3g}. Change "
        "--short-side and --long-side, or the anchors' scales"
    )


def best_overlaps(sizes, anchors):
    """Returns the IoU `(M,)` of every object with the anchor that fits it best, if centred on it.

    Args:
        sizes: float array `(M, 2)`, widths and heights.
        anchors: float array `(A, 2)`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.runs.advice import best_overlaps
    >>> best_overlaps(np.array([[16.0, 32.0]]), np.array([[32.0, 32.0], [8.0, 8.0]])).tolist()
    [0.5]
    """
    best = np.zeros(len(sizes))
    for anchor in anchors:  # as few as levels times shapes; objects may be a million
        shared = np.prod(np.minimum(sizes, anchor), -1)
        union = np.prod(sizes, -1) + np.prod(anchor) - shared
        best = np.maximum(best, shared / union)
    return best


def too_many_objects(counts, limit):
    """Says that images have more objects than a detector can give out.

    Args:
        counts: list of ints, objects of each image.
        limit: int, most detections of an image.

    Example:

    >>> from libra_keras.runs.advice import too_many_objects
    >>> print(too_many_objects([3, 120, 300], limit=100))
    2 of 3 images have more than the 100 objects that the detector gives out for one (most: 300): \
give it --max-detections 300
    >>> too_many_objects([3, 100], limit=100)
    """
    over = sum(count > limit for count in counts)
    if not over:
        return None
    return (
        f"{over} of {len(counts)} images have more than the {limit} objects that the detector "
        f"gives out for one (most: {max(counts)}): give it --max-detections {max(counts)}"
    )
