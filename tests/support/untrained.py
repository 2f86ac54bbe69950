"""Small detectors that were never trained, and find something nevertheless."""

import keras
import numpy as np

from libra_keras import models
from libra_keras.backbones import ConvBatchNorm
from libra_keras.data import InputPolicy


def make(name, seed=0, eager=False):
    """An untrained detector that finds something, with statistics that are not 0 and 1.

    Where its `predict` is called once or twice, `eager` saves the time to trace it.
    """
    keras.utils.set_random_seed(seed)
    given = {} if name == "rpn_small" else {"num_classes": 2}
    model = getattr(models, name)(input_policy=InputPolicy(64, 96), **given)
    if name == "retinanet_small":
        bias = model.head.class_logits.bias  # the prior: nothing is an object
        bias.assign(np.zeros(bias.shape))
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, ConvBatchNorm):
            size = layer.filters
            layer.moving_mean.assign(rng.uniform(-0.2, 0.2, size))
            layer.moving_variance.assign(rng.uniform(0.8, 1.2, size))
            layer.gamma.assign(rng.uniform(0.8, 1.2, size))
            layer.beta.assign(rng.uniform(-0.1, 0.1, size))
    model.run_eagerly = eager
    return model
