"""ImageNet weights of `keras.applications` for a ResNet of caffe style."""

import os
import warnings

import keras
import numpy as np

NETWORKS = {50: "ResNet50", 101: "ResNet101", 152: "ResNet152"}
LARGEST_BIAS = 1e-3


def imagenet_values(weights, depth):
    """Reads the weights of `keras.applications.ResNet50/101/152(include_top=False)`.

    Its convolutions have biases, which are zero up to rounding; they are dropped. Its batch
    normalisation uses epsilon 1.001e-5 where ours uses 1e-5, which changes nothing measurable.
    Images must be BGR, 0..255, minus `(103.939, 116.779, 123.68)`.

    Args:
        weights: `"imagenet"` (Keras downloads the file), or the path of a file written by
            `keras.applications.ResNet50(include_top=False).save_weights(path)`.
        depth: int, 50, 101 or 152.

    Returns:
        Function of `(stage, block, conv)` that returns the values of one `ConvBatchNorm`, a dict
        of arrays `kernel`, `gamma`, `beta`, `moving_mean` and `moving_variance`. `(0, 0, 1)` is the
        stem; stages count from 1, blocks from 0, convolutions of a block from 1, and convolution
        0 is its shortcut.

    Raises:
        ValueError: if there is no network of this depth, no such file, or it holds another network.
    """
    if depth not in NETWORKS:
        raise ValueError(
            f"ImageNet weights exist for depths {tuple(NETWORKS)}. Received: depth={depth}"
        )
    if weights != "imagenet" and not os.path.exists(weights):
        raise ValueError(
            '`weights` must be `None`, "imagenet" or the path of an existing file. '
            f"Received: weights={str(weights)!r}"
        )
    network = load(weights, NETWORKS[depth])

    def values(stage, block, conv):
        prefix = f"conv{stage + 1}_block{block + 1}_{conv}" if stage else "conv1"
        kernel, bias = network.get_layer(f"{prefix}_conv").get_weights()
        warn_of_bias(bias, f"{prefix}_conv")
        gamma, beta, mean, variance = network.get_layer(f"{prefix}_bn").get_weights()
        return {
            "kernel": kernel,
            "gamma": gamma,
            "beta": beta,
            "moving_mean": mean,
            "moving_variance": variance,
        }

    return values


def load(weights, name):
    """Builds the network of `keras.applications` called `name` with these weights."""
    weights = weights if weights == "imagenet" else os.fspath(weights)
    shape = (None, None, 3)
    try:
        return getattr(keras.applications, name)(False, weights=weights, input_shape=shape)
    except Exception as error:  # h5py and Keras raise many kinds
        raise ValueError(
            f"`weights` must fit keras.applications.{name}(include_top=False). "
            f"Received: weights={weights!r}, which could not be loaded: {error}"
        ) from error


def warn_of_bias(bias, name):
    largest = float(np.abs(bias).max())
    if largest > LARGEST_BIAS:
        warnings.warn(
            f"The bias of {name} is dropped although it reaches {largest:.3g}; "
            "these weights do not give the outputs of their network.",
            stacklevel=2,
        )
