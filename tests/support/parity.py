"""How far our numbers are from the reference's, measured as fits each kind of them.

The results go to the fixture `record_error`, which checks the limit and lists the largest error of
each component at the end of the run.
"""

import numpy as np
from keras import ops


def scaled_error(found, expected):
    """Largest difference, in parts of the largest expected entry: for activations."""
    return pixel_error(found, expected) / np.abs(expected).max(initial=1e-30)


def relative_error(found, expected, floor):
    """Largest difference, in parts of the entry itself, or of `floor` where that is larger."""
    apart = np.abs(_array(found, expected) - expected)
    return (apart / np.maximum(np.abs(expected), floor)).max(initial=0)


def pixel_error(found, expected):
    """Largest difference as it is: for boxes in pixels, and for scores."""
    return np.abs(_array(found, expected) - expected).max(initial=0)


def norm_error(found, expected, floor=0.0):
    """Norm of the difference, in parts of the expected norm or of `floor`: for gradients."""
    apart = np.linalg.norm(_array(found, expected) - expected)
    return apart / max(np.linalg.norm(expected), floor, 1e-30)


def different(found, expected):
    """Number of entries that differ: for decisions, of which none may."""
    return np.sum(_array(found, expected) != expected)


def _array(found, expected):
    found = ops.convert_to_numpy(found)
    if found.shape != np.shape(expected):
        raise ValueError(f"shapes differ: {found.shape} and {np.shape(expected)}")
    return found


def partners(found, expected):
    """For every row of `expected`, the index of the nearest row of `found`; no two share one."""
    apart = np.abs(ops.convert_to_numpy(found) - np.asarray(expected)[:, None]).max(-1)
    nearest = apart.argmin(1)
    if len(set(nearest)) < len(nearest):
        raise ValueError("rows are missing: one is the nearest of two")
    return nearest
