"""Counter-based random numbers: the same bits on every backend, device and replica."""

import operator

from keras import ops

from libra_keras.functional import native
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor

# State before anything is absorbed: the first two words of the fraction of pi.
_START = (0x243F6A88, 0x85A308D3)
# Odd multipliers of MurmurHash3's finaliser (Appleby, public domain), as signed 32-bit numbers.
_FIRST_FACTOR = 0x85EBCA6B - (1 << 32)
_SECOND_FACTOR = 0xC2B2AE35 - (1 << 32)
_KEY_BITS = 24  # all that a float32 in [0, 1) can hold evenly


def random_keys(seed: int, step: int | Tensor, positions: Tensor, num: int | Tensor) -> Tensor:
    """Draws uniform numbers that depend on nothing but the four arguments.

    A sampler that ranks its candidates by such keys is random across steps and images, yet can be
    repeated exactly, has no state to save, and gives an image the same sample whether the global
    batch runs on one device or is spread over several. Keys are a hash of (seed, step, position,
    candidate) in wrapping int32 arithmetic: no backend-specific generator takes part.

    Args:
        seed: int of any size and sign, the seed of the run.
        step: int, or integer scalar tensor, the training step. It is reduced to 32 bits.
        positions: integer tensor `(B,)`, the place of each image in the *global* batch.
        num: int, the number of candidates N. On TensorFlow also an integer scalar tensor.

    Returns:
        Float32 tensor `(B, N)`, multiples of 2**-24 in [0, 1).

    Raises:
        TypeError: if `seed` is not an integer.
        ValueError: if `positions` or `step` has another shape, or holds no integers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.random_keys import random_keys
    >>> keys = random_keys(seed=7, step=0, positions=ops.arange(2), num=3)
    >>> ops.convert_to_numpy(keys * 1000).astype(int).tolist()
    [[674, 41, 171], [292, 313, 24]]

    Source: ours. Differs from mmdetection, which draws from the global generators of NumPy and
    PyTorch.
    """
    check_arguments({"step () int": step, "positions (B,) int": positions})
    state = tuple(ops.convert_to_tensor(_signed(word), "int32") for word in _START)
    step = _signed(step % (1 << 32)) if isinstance(step, int) else step
    for word in (*_words(seed), step, positions):
        state = _absorb(state, ops.cast(word, "int32"))
    if isinstance(num, int):  # else the island would not know the shape of its result
        return native.compiled_on_gpu(_draw, num=num)(*state)
    return native.compiled_on_gpu(_draw)(*state, num)


def renew(keys: Tensor, stream: int) -> Tensor:
    """Turns keys into fresh keys that are independent of the old ones.

    A second draw among candidates that a first draw left over must not rank them by the same
    keys: those left over are just the ones whose keys were large.

    Args:
        keys: float tensor of any shape, in [0, 1). Only the leading 24 bits count.
        stream: int, names the draw. Different streams give independent keys.

    Returns:
        Float32 tensor of the shape of `keys`, multiples of 2**-24 in [0, 1). Equal keys stay equal.

    Raises:
        TypeError: if `stream` is not an integer.
        ValueError: if `keys` holds no floats.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.random_keys import renew
    >>> fresh = renew(ops.convert_to_tensor([0.25, 0.5, 0.25]), stream=1)
    >>> ops.convert_to_numpy(fresh * 1000).astype(int).tolist()
    [485, 350, 485]
    """
    check_arguments({"keys float": keys})
    return native.compiled_on_gpu(_renew, stream=stream)(keys)


def _renew(keys, stream):
    state = tuple(ops.convert_to_tensor(_signed(word), "int32") for word in _START)
    for word in _words(stream):
        state = _absorb(state, ops.cast(word, "int32"))
    bits = ops.cast(ops.cast(keys, "float32") * 2.0**_KEY_BITS, "int32")
    return _to_unit(_mix(ops.bitwise_xor(bits, state[0]), state[1]))


def _draw(first, second, num):
    """Keys `(B, num)` of the state `(B,)` of each image."""
    first, second = ops.expand_dims(first, 1), ops.expand_dims(second, 1)
    # Hashing the counter first keeps the streams of two images from being shifted copies.
    candidates = ops.expand_dims(_mix(ops.arange(num, dtype="int32")), 0)
    return _to_unit(_mix(ops.bitwise_xor(candidates, first), second))


def _words(number):
    """Splits an integer into signed 32-bit words, led by their number so that none is ambiguous."""
    number = operator.index(number)
    length = number.bit_length() // 32 + 1  # one bit more than the magnitude, for the sign
    rest = number % (1 << 32 * length)
    return [length, *(_signed((rest >> 32 * i) % (1 << 32)) for i in range(length))]


def _signed(word):
    return word - (1 << 32) if word >= 1 << 31 else word


def _absorb(state, word):
    """Adds a word to a state of two words; for a given word no two states become one."""
    first = _mix(ops.bitwise_xor(state[0], word))
    return first, _mix(ops.add(state[1], first))


def _mix(x, middle=None):
    """Spreads each bit of int32 `x` over all bits, one to one; `middle` joins halfway."""
    x = ops.multiply(_fold(x, 16), _FIRST_FACTOR)
    if middle is not None:
        x = ops.bitwise_xor(x, middle)
    return _fold(ops.multiply(_fold(x, 13), _SECOND_FACTOR), 16)


def _fold(x, shift):
    """`x ^ (x >> shift)` for a shift that fills with zeros."""
    return ops.bitwise_xor(x, _shift_right(x, shift))


def _shift_right(x, shift):
    # The shift of signed numbers repeats the sign bit; the mask takes the copies away.
    return ops.bitwise_and(ops.bitwise_right_shift(x, shift), (1 << (32 - shift)) - 1)


def _to_unit(x):
    leading = _shift_right(x, 32 - _KEY_BITS)
    return ops.cast(leading, "float32") * 2.0**-_KEY_BITS
