"""Whether a data set has boxes to learn from; if not, where they went."""

import numpy as np

from libra_keras.data.findings import Finding

MIN_SIDE = 1.0  # pixels; a box with a side of no more shows nothing
NOTHING = ("no images", "no boxes")
SHOWN = 5  # names of classes


def nothing_to_learn(data):
    """Returns the `Finding` that a data set has no image, or no box to learn from; else `None`.

    Ignored boxes (crowds, difficult objects) and those with a side of at most 1 px are not learnt
    from. What the reader of the data has found out about them is told.

    Args:
        data: `DetectionData`.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.data.learnable import nothing_to_learn
    >>> scenes = data.shapes(20)
    >>> nothing_to_learn(scenes) is None
    True
    >>> print(nothing_to_learn(scenes.subset([19])))  # every twentieth is empty
    shapes/train: no boxes: none is left to learn from: there is none on its images
    """
    if any(_is_learnt(example).any() for example in data.examples):
        return None
    told = [finding for finding in data.findings if finding.kind in NOTHING]
    return told[0] if told else nothing_left(data.name, data.examples)


def nothing_left(name, examples, gone=(), ignored="ignored", are_fractions=None):
    """Makes the `Finding` of a data set that has no box to learn from.

    Args:
        name: str, of the data set.
        examples: list of `Example`, those that are left.
        gone: dict of what was left out of them: numbers of boxes by what these are, and, as
            `"images"`, the number of images.
        ignored: what the boxes that are ignored are called.
        are_fractions: bool, whether all coordinates lie in 0..1. Defaults to those of `examples`.

    Example:

    >>> from libra_keras.data.learnable import nothing_left
    >>> print(nothing_left("train.json", [], {"images": 3}))
    train.json: no images: all 3 were dropped
    """
    gone = dict(gone)
    dropped = gone.pop("images", 0)
    if not examples:
        message = f"all {dropped} were dropped" if dropped else "there is none in it"
        return Finding("no images", name, None, message)
    boxes = np.concatenate([example.boxes.reshape(-1, 4) for example in examples])
    gone[ignored] = sum(int(example.ignore.sum()) for example in examples)
    specks = "at most 1 px wide or high"
    gone[specks] = gone.get(specks, 0) + len(boxes) - gone[ignored]
    total = sum(gone.values())
    parts = [f"{number} of {total} boxes are {what}" for what, number in gone.items() if number]
    message = ", ".join(parts) or "there is none on its images"
    if are_fractions is None:
        are_fractions = in_unit_range(boxes)
    if are_fractions:
        message += ". All coordinates are in 0..1: fractions of the image?"
    return Finding("no boxes", name, None, f"none is left to learn from: {message}")


def empty_classes(name, examples, class_names):
    """Finds classes without a box to learn from: a list of at most one `Finding`, a warning.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.data.learnable import empty_classes
    >>> scenes = data.shapes(2)
    >>> print(*empty_classes("shapes", scenes.examples, scenes.class_names))
    shapes: empty class: 2 of 6 classes have no box to learn from: 'filled square', 'hollow \
triangle'
    """
    labels = [example.labels[_is_learnt(example)] for example in examples]
    used = {int(label) for label in np.unique(np.concatenate(labels))} if labels else set()
    missing = [class_name for k, class_name in enumerate(class_names) if k not in used]
    if not missing:
        return []
    more = f", ... ({len(missing)} in all)" if len(missing) > SHOWN else ""
    message = (
        f"{len(missing)} of {len(class_names)} classes have no box to learn from: "
        f"{', '.join(map(repr, missing[:SHOWN]))}{more}"
    )
    return [Finding("empty class", name, None, message)]


def in_unit_range(values):
    """Whether there are numbers and all lie in 0..1.

    Example:

    >>> from libra_keras.data.learnable import in_unit_range
    >>> in_unit_range([[0.1, 0, 1, 0.5]]), in_unit_range([0, 2]), in_unit_range([])
    (True, False, False)
    """
    values = np.asarray(values, "float64")
    return bool(values.size and np.all((values >= 0) & (values <= 1)))


def _is_learnt(example):
    boxes = np.asarray(example.boxes).reshape(-1, 4)
    return ~example.ignore & (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE).all(-1)
