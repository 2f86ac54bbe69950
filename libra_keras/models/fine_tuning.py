"""The parts of a detector that are trained differently: not at all, or at another rate."""

import warnings

import keras
import numpy as np
from keras import ops

from libra_keras.backbones import ResNet
from libra_keras.keras_private import layers_in

# What batch normalisation starts from; after training no stem has all of these values.
UNTOUCHED = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def parts(detector):
    """Returns the layers of each part of a detector, by the name of the constructor's argument."""
    heads = {name: getattr(detector, name) for name in detector.PARTS}
    heads = {name: [part] for name, part in heads.items() if isinstance(part, keras.layers.Layer)}
    return {"backbone": [detector.backbone], "neck": list(detector.neck), **heads}


def freeze(detector, names):
    """Makes all parts of a detector train except those in `names`; call it before `compile`. What
    was built frozen stays so, such as the first stages of a backbone.
    """
    known = parts(detector)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"A {type(detector).__name__} has the parts {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )
    if not detector.trainable:
        detector.trainable = True  # its parts say what trains
    for name, layers in known.items():
        for layer in layers:
            if name in names:
                freeze_layer(layer)
            elif not layer.trainable:
                layer.trainable = True
    if not detector.trainable_variables:
        raise ValueError(f"Nothing is left to train. Received: names={list(names)}")


def freeze_layer(layer):
    """Freezes a built layer and all that is in it, which assigning `trainable = False` may not
    reach.
    """
    # What a frozen layer made later trains, and where a layer says that it is frozen, TensorFlow
    # leaves out the assignment.
    for part in layers_in(layer):
        type(part).trainable.fset(part, False)


def warn_of_random_features(backbone):
    """Warns if the stem of a `ResNet` does not train although it has no weights but random ones."""
    if not isinstance(backbone, ResNet) or backbone.stem.kernel.trainable:
        return
    made = (
        np.all(ops.convert_to_numpy(getattr(backbone.stem, name)) == value)
        for name, value in UNTOUCHED.items()
    )
    if all(made):
        warnings.warn(
            "The first features are random and do not train: the backbone has no weights, and its "
            'stem is frozen. Give the detector a backbone with weights, `ResNet(50, style="caffe", '
            'weights="imagenet")`, or one that trains from scratch, `ResNet(50, '
            'batch_norm="trainable", frozen_stages=-1)`.',
            stacklevel=3,
        )


def tell_parts(detector):
    """Tells the optimizer, not built yet, which variables the names in `rate_multipliers` mean."""
    optimizer = getattr(detector.optimizer, "inner_optimizer", detector.optimizer)
    if getattr(optimizer, "rate_multipliers", None) and not optimizer.built:
        owned = parts(detector).items()
        optimizer.set_parts(
            {name: [v for layer in layers for v in layer.trainable_variables]
             for name, layers in owned}
        )  # fmt: skip
