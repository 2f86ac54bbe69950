"""Runs that repeat themselves bit for bit."""

import os

import keras


def make_deterministic(seed):
    """Seeds all generators, and lets the backend use only what gives the same bits every time.

    Call it before a model is built. The same program on the same machine, with the same versions
    and devices, then gives the same weights; it may be slower. On a GPU an operation that has no
    such form is an error of the backend when it is used.

    Args:
        seed: int.

    Example:

    >>> import keras
    >>> from libra_keras.training.determinism import make_deterministic
    >>> make_deterministic(7)
    >>> first = keras.random.normal((2,), seed=1)
    >>> make_deterministic(7)
    >>> bool(keras.ops.all(first == keras.random.normal((2,), seed=1)))
    True
    """
    keras.utils.set_random_seed(seed)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    elif backend == "jax":
        # Read when JAX looks for devices, which it does at its first computation.
        flags = os.environ.get("XLA_FLAGS", "")
        if "deterministic" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
