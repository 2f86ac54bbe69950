"""The parts of a detector that are trained differently: not at all, or at another rate."""

import warnings

import keras
import numpy as np
from keras import ops

from libra_keras.backbones import ResNet

# What batch normalisation starts from; after training no stem has all of these values.
UNTOUCHED = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def parts(detector):
    """Returns the layers of each part of a detector.

    Args:
        detector: `Detector`.

    Returns:
        Dict from names to lists of layers: `"backbone"`, `"neck"`, and the heads by the names of
        the constructor's arguments.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.fine_tuning import parts
    >>> {name: len(layers) for name, layers in parts(libra_faster_rcnn_small()).items()}
    {'backbone': 1, 'neck': 2, 'rpn': 1, 'box_head': 1}
    """
    heads = {name: getattr(detector, name) for name in detector.PARTS}
    heads = {name: [part] for name, part in heads.items() if isinstance(part, keras.layers.Layer)}
    return {"backbone": [detector.backbone], "neck": list(detector.neck), **heads}


def freeze(detector, names):
    """Lets all parts of a detector train but some; belongs before `compile`.

    Frozen weights never change, nor do the statistics of batch normalisation among them; in a
    saved model they stay frozen. A part that an earlier call froze trains again if it is not named;
    what the detector was built without training, such as the first stages of a backbone, stays as
    it is.

    Args:
        detector: `Detector`.
        names: list of strings, of those that `parts` returns.

    Raises:
        ValueError: if there is no such part, or nothing is left to train.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.fine_tuning import freeze
    >>> detector = libra_faster_rcnn_small(num_classes=2)
    >>> freeze(detector, ["backbone", "neck", "rpn"])
    >>> len(detector.trainable_variables) == len(detector.box_head.trainable_variables)
    True
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
    """Freezes a layer and all that is in it.

    Assigning `trainable = False` may not reach everything: what a frozen layer made later trains,
    and where a layer says that it is frozen, TensorFlow leaves out the assignment.

    Args:
        layer: built `keras.layers.Layer`.

    Example:

    >>> import keras
    >>> from libra_keras.models.fine_tuning import freeze_layer
    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], trainable=False)
    >>> [variable.trainable for variable in network.weights]
    [True, True]
    >>> freeze_layer(network)
    >>> [variable.trainable for variable in network.weights]
    [False, False]
    """
    for part in layer._flatten_layers():
        type(part).trainable.fset(part, False)


def warn_of_random_features(backbone):
    """Warns if the stem of a `ResNet` does not train although it has no weights but random ones.

    Args:
        backbone: built layer.

    Example:

    >>> import warnings
    >>> from libra_keras.models import faster_rcnn_small
    >>> from libra_keras.models.fine_tuning import freeze, warn_of_random_features
    >>> detector = faster_rcnn_small()
    >>> warn_of_random_features(detector.backbone)
    >>> freeze(detector, ["backbone"])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_random_features(detector.backbone)
    >>> str(caught[-1].message).split(":")[0]
    'The first features are random and do not train'
    """
    if not isinstance(backbone, ResNet) or backbone.stem.kernel.trainable:
        return
    made = (
        np.all(ops.convert_to_numpy(getattr(backbone.stem, name)) == value)
        for name, value in UNTOUCHED.items()
    )
    if all(made):
        warnings.warn(
            "The first features are random and do not train: the backbone has no weights, but a "
            'frozen stem. Give the detector a backbone with weights, `ResNet(50, style="caffe", '
            'weights="imagenet")`, or one that trains from nothing, `ResNet(50, '
            'batch_norm="trainable", frozen_stages=-1)`.',
            stacklevel=3,
        )


def tell_parts(detector):
    """Tells the optimizer which variables the names in its `rate_multipliers` mean.

    Args:
        detector: `Detector` with an optimizer that is not built yet.
    """
    optimizer = getattr(detector.optimizer, "inner_optimizer", detector.optimizer)
    if getattr(optimizer, "rate_multipliers", None) and not optimizer.built:
        owned = parts(detector).items()
        optimizer.set_parts(
            {name: [v for layer in layers for v in layer.trainable_variables]
             for name, layers in owned}
        )  # fmt: skip
