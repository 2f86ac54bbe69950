"""Random numbers for the images of a run: each kind of draw has a stream of its own."""

import numpy as np

# Part of every stream's key: a new kind gets a new number, and changes no stream that there is.
SHORT_SIDES, TURNS, SCALE, COLORS, VERTICAL_FLIP, FUNCTIONS = range(1, 7)


def stream(seed: int, kind: int, *place: int) -> np.random.Generator:
    """Returns the generator of a kind of draw at a place: `(epoch)`, `(epoch, step)` or
    `(epoch, step, slot)`, and the number of a function."""
    # Not one list of numbers: NumPy fills up short ones with zeros, so that two could be equal.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, *map(int, place))))
