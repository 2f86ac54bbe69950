"""The parts of a detector that are trained differently: not at all, or at another rate."""

import keras


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

    Frozen weights never change, nor do the statistics of batch normalisation among them. A part
    that an earlier call froze trains again if it is not named; what the detector was built without
    training, such as the first stages of a backbone, stays as it is.

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
    for name, layers in known.items():
        for layer in layers:
            if layer.trainable == (name in names):
                layer.trainable = name not in names
    if not detector.trainable_variables:
        raise ValueError(f"Nothing is left to train. Received: names={list(names)}")


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
