import itertools

import keras
import numpy as np
import pytest
from gradients import layer_gradients
from keras import ops
from parity import norm_error, scaled_error

from libra_keras.layers import NonLocalBlock

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def load_torch(block, weights, prefix=""):
    """Copies weights of the reference, `(out, in, 1, 1)` under `NAME.conv.weight`, into a block."""
    block_names = set()
    for key in weights:
        if key.startswith(prefix):
            name, kind = key.removeprefix(prefix).split(".conv.")
            conv = getattr(block, name)
            variable = conv.kernel if kind == "weight" else conv.bias
            variable.assign(from_torch(weights[key]))
            block_names.add(variable.path)
    assert block_names == {v.path for v in block.weights}


def from_torch(weight):
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def random_block(channels=6, **kwargs):
    keras.utils.set_random_seed(1)
    block = NonLocalBlock(start="xavier", **kwargs)
    block.build((None, None, None, channels))
    return block


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("use_scale", "reduction"),
    [
        pytest.param(False, 1, marks=pytest.mark.portable),
        (False, 2),
        (True, 1),
        pytest.param(True, 2, marks=pytest.mark.portable),
    ],
)
def test_equals_the_reference(reference, record_error, mode, use_scale, reduction):
    data = reference("nonlocal.npz")
    tag = f"{mode}_scale{int(use_scale)}_red{reduction}"
    weights = {k: v for k, v in data.items() if k.startswith(f"{tag}/w/")}
    x = data["x"] * (np.float32(0.5) if mode == "gaussian" else np.float32(1))
    block = NonLocalBlock(reduction, mode, use_scale)
    block.build(x.shape)
    load_torch(block, weights, f"{tag}/w/")
    output, of_x, of_weights = layer_gradients(block, x, data["cot"])
    record_error(f"non-local {mode}: output", scaled_error(output, data[f"{tag}/out"]), 1e-4)
    record_error(f"non-local {mode}: input gradient", norm_error(of_x, data[f"{tag}/gx"]), 1e-3)
    for key in weights:
        name, kind = key.removeprefix(f"{tag}/w/").split(".conv.")
        conv = getattr(block, name)
        actual = of_weights[(conv.kernel if kind == "weight" else conv.bias).path]
        expected = from_torch(data[key.replace("/w/", "/gw/")])
        # The bias of phi shifts all logits of a softmax: its gradient is rounding around 0.
        floor = 0.2 if (name, kind) == ("phi", "bias") else 0.0
        error = norm_error(actual, expected, floor)
        record_error(f"non-local {mode}: weight gradients", error, 1e-3)


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_formula(rng, mode, sub_sample):
    x = rng.normal(size=(2, 5, 4, 6)).astype("float32")
    block = random_block(mode=mode, sub_sample=sub_sample)

    def project(conv, x):
        return x @ ops.convert_to_numpy(conv.kernel)[0, 0] + ops.convert_to_numpy(conv.bias)

    def keys(x):  # 2x2 windows; the fifth row has no partner
        if sub_sample:
            x = x[:, :4].reshape(2, 2, 2, 2, 2, -1).max((2, 4))
        return x.reshape(2, -1, x.shape[-1])

    if mode == "gaussian":
        weights = softmax(x.reshape(2, 20, 6) @ keys(x).transpose(0, 2, 1))
    else:
        theta = project(block.theta, x).reshape(2, 20, 3)
        phi = keys(project(block.phi, x))
        products = theta @ phi.transpose(0, 2, 1)
        if mode == "embedded_gaussian":
            weights = softmax(products / np.sqrt(3))
        elif mode == "dot_product":
            weights = products / phi.shape[1]
        else:  # the pairs written out
            shape = (2, 20, phi.shape[1], 3)
            pairs = np.concatenate(
                [np.broadcast_to(theta[:, :, None], shape), np.broadcast_to(phi[:, None], shape)],
                -1,
            )
            w = ops.convert_to_numpy(block.concat_project.kernel)[0, 0, :, 0]
            weights = np.maximum(pairs @ w, 0) / phi.shape[1]
    expected = x + project(
        block.conv_out, (weights @ keys(project(block.g, x))).reshape(2, 5, 4, 3)
    )
    np.testing.assert_allclose(block.attention(x), weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.portable
@pytest.mark.parametrize("mode", MODES)
def test_blocks_give_the_numbers_of_the_dense_form(rng, mode):
    x, cotangents = rng.normal(size=(2, 2, 5, 4, 6)).astype("float32")
    found, expected = (  # of 20 positions 7, 7 and 6
        keras.tree.flatten(layer_gradients(random_block(mode=mode, block=block), x, cotangents))
        for block in (7, None)
    )
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)


@pytest.mark.portable
@pytest.mark.parametrize("mode", MODES)
def test_zero_start_is_the_identity_that_learns(rng, mode):
    x = rng.normal(size=(1, 4, 5, 8)).astype("float32")
    block = NonLocalBlock(mode=mode)
    block.build(x.shape)
    output, _, of_weights = layer_gradients(block, x, rng.normal(size=x.shape).astype("float32"))
    np.testing.assert_array_equal(output, x)
    assert np.abs(of_weights[block.conv_out.kernel.path]).max() > 0


@pytest.mark.portable
def test_convolutions_start_apart():
    """With theta = phi, every position would attend to itself: |W x|^2 is on the diagonal."""
    block = NonLocalBlock(reduction=1)
    block.build((None, 8, 8, 64))
    kernels = [ops.convert_to_numpy(c.kernel) for c in (block.theta, block.phi, block.g)]
    for one, other in itertools.combinations(kernels, 2):
        # The correlation of 4096 numbers has deviation 1 / 64.
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.08
    assert all(kernel.std() == pytest.approx(0.01, rel=0.05) for kernel in kernels)


def test_xavier_start_is_not_the_identity(rng):
    x = rng.normal(size=(1, 4, 5, 8)).astype("float32")
    block = NonLocalBlock(reduction=1, start="xavier")
    assert np.abs(ops.convert_to_numpy(block(x)) - x).max() > 0.01
    limit = np.sqrt(6 / 16)  # Xavier-uniform: sqrt(6 / (inputs + outputs))
    for conv in (block.g, block.theta, block.phi, block.conv_out):
        kernel = np.abs(ops.convert_to_numpy(conv.kernel))
        assert 0.7 * limit < kernel.max() <= limit
        assert not np.any(ops.convert_to_numpy(conv.bias))


def test_reduction_keeps_at_least_one_channel():
    block = NonLocalBlock(reduction=16)
    block.build((None, None, None, 8))
    assert block.g.kernel.shape == (1, 1, 8, 1)


def test_attention_is_float32_under_mixed_precision(rng):
    x = rng.normal(size=(2, 3, 4, 8)).astype("float32")
    for mode in MODES:
        block = random_block(8, mode=mode, block=5, dtype="mixed_bfloat16")
        weights = block.attention(ops.cast(x, "bfloat16"))
        assert keras.backend.standardize_dtype(weights.dtype) == "float32"
        if "gaussian" in mode:  # rows of a bfloat16 softmax would add up to 1 only within 1e-2
            np.testing.assert_allclose(ops.sum(weights, -1), np.ones((2, 12)), atol=1e-5)
        assert keras.backend.standardize_dtype(block(x).dtype) == "bfloat16"
        exact = NonLocalBlock(mode=mode)
        exact.build(x.shape)
        exact.set_weights(block.get_weights())
        np.testing.assert_allclose(ops.cast(block(x), "float32"), exact(x), atol=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_unknown_sizes(rng, mode):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function has unknown sizes")
    import tensorflow as tf

    block = random_block(mode=mode, sub_sample=True)
    traced = tf.function(block, input_signature=[tf.TensorSpec((None, None, None, 6))])
    for size in ((4, 6), (5, 3)):
        x = rng.normal(size=(2, *size, 6)).astype("float32")
        np.testing.assert_allclose(traced(x), block(x), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_save_and_load(rng, tmp_path, mode):
    inputs = keras.Input((None, None, 6))
    options = {"use_scale": False, "sub_sample": True, "start": "xavier", "block": 9}
    block = NonLocalBlock(3, mode, name="block", **options)
    model = keras.Model(inputs, block(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("block").get_config() == block.get_config()
    x = rng.normal(size=(1, 4, 6, 6)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))


@pytest.mark.portable
@pytest.mark.parametrize(
    "bad", [{"reduction": 0}, {"mode": "cosine"}, {"start": "ones"}, {"block": 0}]
)
def test_says_what_is_wrong(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}.*{value!r}"):
        NonLocalBlock(**bad)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"shape=\(2, 3, 4\)"):
        NonLocalBlock().build((2, 3, 4))
