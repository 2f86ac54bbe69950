"""The option of `libra-keras train` about the numbers that layers compute with."""

import contextlib

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def add_arguments(group):
    """Adds `--precision`."""
    group.add_argument(
        "--precision",
        choices=POLICIES,
        help="what layers compute with; weights, boxes, the attention's softmax and losses are "
        "float32 always. For GPUs and TPUs: CPUs gain little or nothing with mixed_bfloat16, and "
        "lose much with mixed_float16. Default: float32, or that of --init",
    )


@contextlib.contextmanager
def built_with(name):
    """Layers that are made within this context get a dtype policy; `None` changes nothing.

    Example:

    >>> import keras
    >>> from libra_keras.cli.precision import built_with
    >>> with built_with("mixed_bfloat16"):
    ...     keras.layers.Dense(1).compute_dtype
    'bfloat16'
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
