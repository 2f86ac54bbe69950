"""Runs that repeat themselves bit for bit."""

import os

import keras

from libra_keras.devices.hardware import TooLate, jax_has_started

JAX_FLAG = "--xla_gpu_deterministic_ops=true"


def make_deterministic(seed: int) -> None:
    """Seeds all generators, and makes the backend use only operations that repeat bit for bit.

    Call it before a model is built; with JAX first of all, before devices are chosen. The same
    program on the same machine, with the same versions and devices, then gives the same weights;
    it may be slower. On a GPU, using an operation that has no deterministic form raises an error of
    the backend.

    Raises:
        TooLate: if JAX has started without this setting; nothing is changed then.

    Example:

    >>> import keras
    >>> from libra_keras.devices import make_deterministic
    >>> make_deterministic(7)
    >>> first = keras.random.normal((2,), seed=1)
    >>> make_deterministic(7)
    >>> bool(keras.ops.all(first == keras.random.normal((2,), seed=1)))
    True
    """
    backend = keras.backend.backend()
    if backend == "jax":
        _set_jax_flag()
    keras.utils.set_random_seed(seed)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _set_jax_flag() -> None:
    """Adds the flag to those that JAX reads when it looks for devices; one that is there stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "deterministic" in flags:
        return
    if jax_has_started():
        raise TooLate(
            "It is too late to make JAX deterministic: it has started already, and reads "
            "XLA_FLAGS only at its start. Call `make_deterministic` before devices are chosen or "
            f"anything is computed, or start the program with XLA_FLAGS={JAX_FLAG}"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {JAX_FLAG}".strip()
