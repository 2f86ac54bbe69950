"""Compares targets of anchors and gradients with those of the reference's training steps."""

from typing import NamedTuple

import numpy as np
from keras import ops
from parity import different, norm_error, relative_error
from reference_detector import in_our_layout, named_variables


class DenseTargets(NamedTuple):
    """What the N anchors of B images should answer, as arrays; `deltas` count for positives."""

    labels: object
    is_trained: object
    is_positive: object
    deltas: object

    @classmethod
    def of(cls, labels, is_trained, is_positive, deltas):
        """Takes tensors."""
        arrays = map(ops.convert_to_numpy, (labels, is_trained, is_positive, deltas))
        return cls(*arrays)


def empty_pyramid(strides, channels=32):
    """Levels of the reference's training images, 128x160 pixels; their sizes give the anchors."""
    return [ops.zeros((1, -(-128 // s), -(-160 // s), channels)) for s in strides]


def check_dense_targets(record_error, ours, golden, case, level_lengths):
    """Compares anchors level by level. Those that are not trained may have any label."""
    start, deltas = 0, []
    for i, length in enumerate(level_lengths):
        level = DenseTargets(*(part[:, start : start + length] for part in ours))
        theirs = [golden[f"{case}/dense_{name}{i}"] for name in DENSE_ARRAYS]
        trained = theirs[1] > 0
        apart = (
            different(level.labels[trained], theirs[0][trained]),
            different(level.is_trained, theirs[1]),
            different(level.is_positive, theirs[2]),
        )
        record_error("training: anchors' targets, differing", max(apart), 0)
        deltas.append(level.deltas[level.is_positive])
        start += length
    expected = golden[f"{case}/dense_pos_bbox_targets"]
    error = relative_error(np.concatenate(deltas), expected, floor=1.0)
    record_error("training: anchors' deltas", error, 1e-5)


DENSE_ARRAYS = ("labels", "label_weights", "bbox_weights")


def check_gradients(record_error, name, model, tape, total, expected):
    """Compares the gradient of every variable, in norms, and which variables have none."""
    ours = {v.path: name for name, v in named_variables(model).items()}
    names = [ours[v.path] for v in model.trainable_variables]
    assert set(names) == {key for key in expected if not key.startswith("__")}
    # The reference counts neither running means and variances nor what is frozen.
    frozen = set(ours.values()) - set(names)
    assert {key for key in frozen if "running" not in key} == set(expected["__nograd__"])
    error = relative_error(total, expected["__total__"], floor=0.0)
    record_error(f"{name}: sum of losses", error, 1e-5)
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    for key, gradient in zip(names, gradients, strict=True):
        # phi's bias shifts all logits of a softmax: its gradient is 0 but for rounding.
        floor = 1e-3 if key.endswith("phi.conv.bias") else 0.0
        error = norm_error(gradient, in_our_layout(key, expected[key]), floor)
        record_error(f"{name}: gradients", error, 1e-3)
