"""Weighted means of values, with weights made of queries and keys, a block of queries at a time.

Where all weights at once are too many, those of a block are made, used and dropped, and made again
for the gradient: memory grows with the number of queries, not with its product with the keys.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from libra_keras.functional import control_flow, native
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import take
from libra_keras.ranges import whole
from libra_keras.typing import Tensor

# Weights of one image, 128 MiB and 64 MiB. With this many it is all of them in one block: up to
# 5,792 positions that see each other, and the refined level of 1333 x 800 pixels has 4,200.
MAX_WHOLE = 2**25
MAX_BLOCK = 2**24


def weights(queries: Tensor, keys: Tensor, form: str = "softmax") -> Tensor:
    """Returns how much each query weighs each key, all at once.

    Args:
        queries: float tensor `(B, N, C)`.
        keys: float tensor `(B, M, C)`.
        form: `"softmax"`: softmax over the keys of `query . key`. `"product"`: `query . key / M`.
            `"relu"`: `relu(query + key) / M`, where C is 1.

    Returns:
        float32 tensor `(B, N, M)`.

    Raises:
        ValueError: if an argument has another shape or kind, or the form is unknown.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import attention
    >>> queries, keys = [[[1.0], [2.0]]], [[[3.0], [-1.5]]]
    >>> ops.convert_to_numpy(attention.weights(queries, keys, "relu")).tolist()
    [[[2.0, 0.0], [2.5, 0.25]]]
    """
    check_arguments({"queries (B, N, C) float": queries, "keys (B, M, C) float": keys})
    return _form(form, queries).weights(_float32(queries), _float32(keys))


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    form: str = "softmax",
    block: int | None = None,
) -> Tensor:
    """Returns the sum over all keys of weight times value: `weights(queries, keys) @ values`.

    With `"product"` keys and values are multiplied first, which takes no `(N, M)` weights. The
    other forms have gradients of their own, which cannot be differentiated once more. Within
    `control_flow.straight_line` there is one block.

    Args:
        queries: float tensor `(B, N, C)`; N may be unknown.
        keys: float tensor `(B, M, C)`.
        values: float tensor `(B, M, D)`.
        form: see `weights`.
        block: int >= 1, at most how many queries are weighed at once. Defaults to all of them if
            that makes at most `MAX_WHOLE` weights an image, else to as many as make `MAX_BLOCK`.

    Returns:
        float32 tensor `(B, N, D)`.

    Raises:
        ValueError: if an argument has another shape or kind, or is out of range.
        TypeError: if `block` is not an int.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import attention
    >>> queries, keys, values = [[[1.0], [2.0], [0.0]]], [[[3.0], [-1.5]]], [[[10.0], [20.0]]]
    >>> mixed = attention.attend(queries, keys, values, "relu", block=2)
    >>> ops.convert_to_numpy(mixed)[0, :, 0].tolist()
    [20.0, 30.0, 15.0]

    Source: [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682); here with blocks of queries
    only, which leaves each softmax whole.
    """
    check_arguments(
        {
            "queries (B, N, C) float": queries,
            "keys (B, M, C) float": keys,
            "values (B, M, D) float": values,
        }
    )
    chosen = _form(form, queries)
    if block is not None:
        block = whole(1).check("`block`", block)
    queries, keys, values = map(_float32, (queries, keys, values))
    if form == "product":
        num_keys = ops.cast(ops.maximum(ops.shape(keys)[1], 1), "float32")
        return ops.matmul(queries, ops.matmul(_transposed(keys), values) / num_keys)
    length, num_keys = ops.shape(queries)[1], ops.shape(keys)[1]
    size = _block_size(length, num_keys, block)
    fits = isinstance(length, int) and isinstance(size, int) and length <= size
    if fits or control_flow.active():
        return ops.matmul(chosen.weights(queries, keys), values)
    return _in_blocks(chosen, queries, keys, values, size)


class _Form(NamedTuple):
    weights: Callable  # of queries and keys
    # The gradients of queries and keys, of both, the weights and the gradient of the weights.
    slopes: Callable | None


def _form(name, queries):
    if name not in _FORMS:
        raise ValueError(f"`form` must be one of {tuple(_FORMS)}. Received: form={name!r}")
    if name == "relu":
        check_arguments({"queries (B, N, 1) float": queries})
    return _FORMS[name]


def _float32(x):
    return ops.cast(ops.convert_to_tensor(x), "float32")


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))


def _products(queries, keys):
    return ops.matmul(queries, _transposed(keys))


def _mean_products(queries, keys):
    return _products(queries, keys) / ops.cast(ops.shape(keys)[1], "float32")


def _softmax_weights(queries, keys):
    return ops.softmax(_products(queries, keys), axis=-1)


def _softmax_slopes(queries, keys, weights, of_weights):
    mean = ops.sum(of_weights * weights, axis=-1, keepdims=True)
    of_products = (of_weights - mean) * weights
    return ops.matmul(of_products, keys), ops.matmul(_transposed(of_products), queries)


def _relu_weights(queries, keys):
    return ops.relu(queries + _transposed(keys)) / ops.cast(ops.shape(keys)[1], "float32")


def _relu_slopes(queries, keys, weights, of_weights):
    num_keys = ops.cast(ops.shape(keys)[1], "float32")
    of_sums = ops.where(weights > 0, of_weights, 0.0) / num_keys
    of_keys = ops.sum(of_sums, axis=1, keepdims=True)
    return ops.sum(of_sums, axis=-1, keepdims=True), _transposed(of_keys)


_FORMS = {
    "softmax": _Form(_softmax_weights, _softmax_slopes),
    "product": _Form(_mean_products, None),
    "relu": _Form(_relu_weights, _relu_slopes),
}


def _block_size(length, num_keys, block):
    """At most how many queries are weighed at once, at least 1; a tensor if a length is one."""
    if block is not None:
        return block
    known = isinstance(length, int) and isinstance(num_keys, int)
    larger = max if known else ops.maximum
    num_keys = larger(num_keys, 1)
    fits = length <= MAX_WHOLE // num_keys  # their product may be too large for 32 bits
    whole_size, part = larger(length, 1), larger(MAX_BLOCK // num_keys, 1)
    if known:
        return whole_size if fits else part
    return ops.where(fits, whole_size, part)


def _in_blocks(form, queries, keys, values, size):
    """Attention of blocks of equal size, at most `size`: the queries are padded with zeros."""
    batch, length, channels = ops.shape(queries)
    count = (length + size - 1) // size
    size = -(-length // (max if isinstance(count, int) else ops.maximum)(count, 1))
    # TensorFlow writes nothing into an empty tensor.
    rounds = count * (min if isinstance(batch, int) else ops.minimum)(batch, 1)
    padded = ops.pad(queries, [[0, 0], [0, count * size - length], [0, 0]])
    blocks = ops.transpose(ops.reshape(padded, (batch, count, size, channels)), (1, 0, 2, 3))
    mixed = ops.transpose(_recomputing(form, rounds)(blocks, keys, values), (1, 0, 2, 3))
    return ops.reshape(mixed, (batch, count * size, values.shape[-1]))[:, :length]


def _recomputing(form, rounds):
    """A function of blocks of queries `(rounds, B, size, C)`, keys and values."""

    @ops.custom_gradient
    def mixed(blocks, keys, values):
        blocks, keys, values = map(ops.stop_gradient, (blocks, keys, values))

        def add_block(i, done):
            own = ops.matmul(form.weights(take(blocks, i), keys), values)
            return _with_block(done, i, own)

        def gradient(*arguments, upstream=None):  # PyTorch names it, after the function's inputs
            if upstream is None:
                (upstream,) = arguments
            return _slopes(form, rounds, (blocks, keys, values), upstream)

        nothing = ops.zeros((*ops.shape(blocks)[:3], values.shape[-1]), "float32")
        return native.in_turn(rounds, add_block, nothing), gradient

    return mixed


def _slopes(form, rounds, inputs, upstream):
    """The gradients of the blocks, keys and values."""
    blocks, keys, values = inputs

    def add_block(i, done):
        of_blocks, of_keys, of_values = done
        queries, of_mixed = take(blocks, i), take(upstream, i)
        weights = form.weights(queries, keys)
        of_weights = _products(of_mixed, values)
        of_queries, more = form.slopes(queries, keys, weights, of_weights)
        return (
            _with_block(of_blocks, i, of_queries),
            of_keys + more,
            of_values + ops.matmul(_transposed(weights), of_mixed),
        )

    return native.in_turn(rounds, add_block, tuple(map(ops.zeros_like, inputs)))


def _with_block(blocks, i, block):
    return ops.scatter_update(blocks, [[i]], block[None])
