"""A model's config with layers that compute in another precision."""


def config_with_policy(config, new, old=None):
    """Returns a model's config with another dtype policy.

    Args:
        config: dict as `model.get_config()`.
        new: name of a policy, such as `"mixed_bfloat16"`.
        old: name of the policy to replace; layers with others keep them. `None` replaces all.

    Example:

    >>> import keras
    >>> from libra_keras.models.dtype_policies import config_with_policy
    >>> config = keras.layers.Dense(1).get_config()
    >>> config_with_policy(config, "mixed_float16")["dtype"]["config"]["name"]
    'mixed_float16'
    >>> config_with_policy(config, "mixed_float16", old="float64") == config
    True
    """
    if isinstance(config, (list, tuple)):
        return type(config)(config_with_policy(item, new, old) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and old in (None, config["config"].get("name")):
        return {**config, "config": {**config["config"], "name": new}}
    return {key: config_with_policy(value, new, old) for key, value in config.items()}
