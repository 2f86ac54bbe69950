"""The keys are pinned bit by bit, and tested as random numbers are."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.functional import native
from libra_keras.functional.random_keys import random_keys, renew

LIMIT = 1 << 32


def keys_of(seed, step, positions, num):
    keys = random_keys(seed, step, ops.convert_to_tensor(positions, "int32"), num)
    return ops.convert_to_numpy(keys)


def mix(x, middle=0):
    """The mixing of unsigned 32-bit words in plain Python."""
    x = (x ^ x >> 16) * 0x85EBCA6B % LIMIT ^ middle
    x = (x ^ x >> 13) * 0xC2B2AE35 % LIMIT
    return x ^ x >> 16


def twin(words, candidates):
    """The hash in plain Python: absorb the words, then mix in each candidate."""
    a, b = 0x243F6A88, 0x85A308D3
    for word in words:
        a = mix(a ^ word % LIMIT)
        b = mix((b + a) % LIMIT)
    return [(mix(mix(i) ^ a, b) >> 8) / 2**24 for i in candidates]


@pytest.mark.portable
def test_values_are_pinned():
    # A change here changes every seeded run. Written down from the first version.
    expected = np.array([[11309038, 698234, 2885051], [4913207, 5254296, 410257]]) / 2**24
    np.testing.assert_array_equal(keys_of(7, 0, [0, 1], 3), expected)


@pytest.mark.parametrize(
    "seed, words",
    [
        (5, [1, 5]),
        (-5, [1, -5]),  # two's complement, in as many words as sign and magnitude need
        (2**31, [2, 2**31, 0]),
        (2**32 - 1, [2, 2**32 - 1, 0]),  # not the same as -1
        (-1, [1, -1]),
        (3 * 2**64 + 7, [3, 7, 0, 3]),
    ],
)
def test_equals_a_twin_in_plain_python(seed, words):
    keys = keys_of(seed, 2**31 - 1, [0, 3, 1000], 50)
    for row, position in zip(keys, [0, 3, 1000], strict=True):
        np.testing.assert_array_equal(row, twin([*words, 2**31 - 1, position], range(50)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the way of TensorFlow's GPUs")
def test_a_gpu_draws_in_one_kernel_also_an_unknown_number(monkeypatch):
    """TensorFlow computes integers of 32 bits on the host, and copies them there and back."""
    import tensorflow as tf

    def keys(positions, num):
        return renew(random_keys(7, 0, positions, num), 4)

    expected = keys(tf.range(2), 3)
    monkeypatch.setattr(native, "_has_gpu", lambda: True)
    traced = tf.function(keys, autograph=False)
    specs = tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.int32)
    operations = traced.get_concrete_function(*specs).graph.get_operations()
    large = {op.type for op in operations if op.outputs and op.outputs[0].shape.rank == 2}
    assert large - {"Identity"} == {"PartitionedCall"}
    for found in (traced(tf.range(2), tf.constant(3)), keys(tf.range(2), 3)):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.portable
def test_renewed_keys_equal_a_twin_in_plain_python():
    keys = keys_of(1, 1, [0], 20)
    a, b = 0x243F6A88, 0x85A308D3
    for word in (1, 9):
        a = mix(a ^ word)
        b = mix((b + a) % LIMIT)
    expected = [(mix(int(key * 2**24) ^ a, b) >> 8) / 2**24 for key in keys[0]]
    np.testing.assert_array_equal(ops.convert_to_numpy(renew(keys, 9))[0], expected)


def test_range_and_dtype():
    keys = random_keys(0, 0, ops.arange(2), 100_000)
    assert keras.backend.standardize_dtype(keys.dtype) == "float32"
    keys = ops.convert_to_numpy(keys)
    assert keys.shape == (2, 100_000)
    assert keys.min() >= 0 and keys.max() < 1
    np.testing.assert_array_equal(keys * 2**24, np.floor(keys * 2**24))


def chi_square(values, bins):
    """(statistic - its mean) / its standard deviation, about standard normal if uniform."""
    observed = np.bincount((values.ravel() * bins).astype(int), minlength=bins)
    expected = values.size / bins
    statistic = np.sum((observed - expected) ** 2) / expected
    return (statistic - (bins - 1)) / np.sqrt(2 * (bins - 1))


@pytest.fixture(scope="module")
def draws():
    """Keys along each of the four things that they depend on."""
    return {
        "candidates": keys_of(0, 0, [0], 400_000),
        "images": keys_of(0, 1, np.arange(20_000), 20),
        "steps": np.stack([keys_of(0, step, [0], 5000) for step in range(40)]),
        "seeds": np.stack([keys_of(seed, 0, [0], 5000) for seed in range(-20, 20)]),
    }


@pytest.mark.parametrize("along", ["candidates", "images", "steps", "seeds"])
def test_uniform(draws, along):
    for bins in (2, 16, 256, 4096):
        assert abs(chi_square(draws[along], bins)) < 4


def test_low_bits_are_uniform_too(draws):
    values = draws["candidates"].astype("float64")
    for shift in (8, 14, 20):
        assert abs(chi_square(values * 2**shift % 1, 16)) < 4


def test_neighbouring_streams_are_independent():
    n = 100_000
    first = keys_of(3, 5, [0, 1], n).astype("float64")
    others = [
        first[1],  # the next image
        keys_of(3, 6, [0], n)[0],  # the next step
        keys_of(4, 5, [0], n)[0],  # the next seed
        keys_of(5, 3, [0], n)[0],  # step and seed exchanged
        np.roll(first[0], 1),  # the next candidate
        ops.convert_to_numpy(renew(first[:1], 1))[0],
        ops.convert_to_numpy(renew(first[:1], 2))[0],
    ]
    for other in others:
        assert abs(np.corrcoef(first[0], other)[0, 1]) < 4 / np.sqrt(n)
        pairs = np.floor(first[0] * 16) * 16 + np.floor(other * 16)  # jointly uniform
        assert abs(chi_square((pairs + 0.5) / 256, 256)) < 4


def test_renewed_streams_are_independent_of_each_other():
    keys = keys_of(3, 5, [0], 100_000)
    one, two = (ops.convert_to_numpy(renew(keys, stream))[0] for stream in (1, 2))
    pairs = np.floor(one * 16) * 16 + np.floor(two * 16)
    assert abs(chi_square((pairs + 0.5) / 256, 256)) < 4


def test_every_input_bit_changes_half_of_the_output_bits():
    base = keys_of(0, 0, [0], 2000)[0]
    for bit in range(0, 31, 3):
        for changed in (keys_of(0, 1 << bit, [0], 2000), keys_of(0, 0, [1 << bit], 2000)):
            flipped = (base * 2**24).astype(int) ^ (changed[0] * 2**24).astype(int)
            share = np.unpackbits(flipped.astype(">u4").view("u1")).sum() / (24 * 2000)
            assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(24 * 2000)


def test_an_image_keeps_its_keys_wherever_it_is_computed():
    whole = keys_of(1, 2, [0, 1, 2, 3], 50)
    np.testing.assert_array_equal(keys_of(1, 2, [2, 3], 50), whole[2:])
    np.testing.assert_array_equal(keys_of(1, 2, [3], 20), whole[3:, :20])


def test_steps_of_any_integer_type():
    expected = keys_of(1, 7, [0], 10)
    np.testing.assert_array_equal(keys_of(1, np.int64(7), [0], 10), expected)
    np.testing.assert_array_equal(keys_of(1, ops.convert_to_tensor(7, "int32"), [0], 10), expected)
    np.testing.assert_array_equal(keys_of(1, 2**32 + 7, [0], 10), expected)


def test_a_seed_that_is_no_integer():
    with pytest.raises(TypeError):
        keys_of(0.5, 0, [0], 3)


def test_no_images_or_no_candidates():
    assert keys_of(0, 0, np.zeros(0, int), 5).shape == (0, 5)
    assert keys_of(0, 0, [0, 1], 0).shape == (2, 0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's")
def test_graph_with_unknown_number_of_candidates():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), "int64"), tf.TensorSpec((), "int32")])
    def graph(step, num):
        return random_keys(11, step, ops.arange(2), num)

    for num in (5, 17):
        np.testing.assert_array_equal(graph(3, num).numpy(), keys_of(11, 3, [0, 1], num))
