"""Helpers to test random choices: many draws in one batch, frequencies, comparisons of them."""

import numpy as np
from keras import ops

from libra_keras.functional.random_keys import random_keys

DRAWS = 200  # images that repeat one and the same case: a draw each


def keys_of(images, num, seed=0):
    return random_keys(seed, 0, ops.arange(images), num)


def repeated(values, images=DRAWS):
    return ops.convert_to_tensor(np.repeat(np.asarray(values)[None], images, 0))


def masks(result, num):
    """Checks what every choice promises; returns it as a mask `(B, num)` in NumPy."""
    indices, chosen = (ops.convert_to_numpy(part) for part in result)
    assert indices.dtype == "int32" and chosen.dtype == bool
    assert np.all(np.diff(chosen.astype(int), axis=1) <= 0), "chosen is a prefix"
    assert np.all(indices[~chosen] == 0)
    mask = np.zeros((len(indices), num), int)
    for row, index, real in zip(mask, indices, chosen, strict=True):
        np.add.at(row, index[real], 1)
    assert mask.max(initial=0) <= 1, "no index twice"
    return mask.astype(bool)


def uniform_error(mask):
    """Largest deviation of a candidate's frequency from the mean one, in standard errors."""
    frequency = mask.mean(0)
    p = frequency.mean()
    return np.abs(frequency - p).max() / np.sqrt(p * (1 - p) / len(mask))


def differences(frequency, reference, draws, reference_draws=500):
    """Deviations of frequencies from mmdetection's, in standard errors of the difference."""
    p = (frequency * draws + reference * reference_draws) / (draws + reference_draws)
    error = np.sqrt(p * (1 - p) * (1 / draws + 1 / reference_draws))
    return np.abs(frequency - reference)[error > 0] / error[error > 0]


def same_frequencies(mask, reference):
    frequency = mask.mean(0)
    z = differences(frequency, reference, len(mask))
    # Of 2000 normal deviations 0.13 exceed 4 on average, and four or more do once in 10**5 files.
    return z.size == 0 or (z.max() < 6 and np.sum(z > 4) <= 3 and 0.75 < np.mean(z**2) < 1.25)


def standard_errors(counts, expected, rounding, reference_draws=500):
    """Deviation of the mean of `counts` from mmdetection's mean, in standard errors."""
    error = counts.std() * np.sqrt(1 / len(counts) + 1 / reference_draws)
    return max(abs(counts.mean() - expected) - rounding, 0) / max(error, 1e-9)
