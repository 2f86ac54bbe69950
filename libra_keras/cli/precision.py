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


def config_with_policy(config, old, new):
    """Returns a model's config with another dtype policy wherever it has the old one.

    Args:
        config: dict as `model.get_config()`.
        old, new: names of policies.

    Example:

    >>> import keras
    >>> from libra_keras.cli.precision import config_with_policy
    >>> config = keras.layers.Dense(1).get_config()
    >>> config_with_policy(config, "float32", "mixed_float16")["dtype"]["config"]["name"]
    'mixed_float16'
    """
    if isinstance(config, (list, tuple)):
        return type(config)(config_with_policy(item, old, new) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"].get("name") == old:
        return {**config, "config": {**config["config"], "name": new}}
    return {key: config_with_policy(value, old, new) for key, value in config.items()}
