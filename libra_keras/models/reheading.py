"""A trained detector as the start for other classes."""

from libra_keras.models.box_head import BoxHead
from libra_keras.models.retina_head import RetinaHead

# The last layers of each kind of head whose outputs count classes. The deltas of a `RetinaHead`
# are one box an anchor, whatever is in it.
CLASS_LAYERS = ((BoxHead, ("class_logits", "box_deltas")), (RetinaHead, ("class_logits",)))


def with_classes(detector, class_names):
    """Returns a copy of a detector that finds other classes; the given one stays as it is.

    All values are copied but those of the last layers whose outputs belong to classes: they start
    anew, also for names that both have, as in mmdetection. If the names are the detector's own in
    their order, nothing starts anew. A `RegionProposalNetwork` knows no classes: its copy is
    whole. `models.reheading.reheaded_layers` names the layers that start anew.

    Args:
        detector: `FasterRCNN`, `FastRCNN`, `RetinaNet` or `RegionProposalNetwork`.
        class_names: list of K strings.

    Returns:
        A detector of the same kind, architecture and settings; it is not compiled.

    Raises:
        TypeError: if `class_names` is a string.
        ValueError: if `class_names` is empty, or holds a name twice.

    Example:

    >>> from libra_keras.models import retinanet_small, with_classes
    >>> shapes = retinanet_small(num_classes=6)
    >>> pets = with_classes(shapes, ["cat", "dog"])
    >>> pets.num_classes, pets.class_names, shapes.num_classes
    (2, ['cat', 'dog'], 6)
    """
    return rebuilt(
        detector,
        config_with_classes(detector, class_names),
        fresh=reheaded_layers(detector, class_names),
    )


def reheaded_layers(detector, class_names):
    """Returns the names of the layers that `with_classes` lets start anew.

    Args:
        detector, class_names: as in `with_classes`. A detector without names cannot be known to
            find these classes, even if it finds as many.

    Returns:
        List of strings, attributes of the detector's heads; empty if all values are kept.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.reheading import reheaded_layers
    >>> detector = libra_faster_rcnn_small(num_classes=2, class_names=["cat", "dog"])
    >>> reheaded_layers(detector, ["dog", "cat"])
    ['class_logits', 'box_deltas']
    >>> reheaded_layers(detector, ["cat", "dog"])
    []
    """
    if detector.class_names is not None and detector.class_names == list(class_names):
        return []
    return [name for head in detector.heads() for name in _class_layers(head)]


def config_with_classes(detector, class_names):
    """Returns the config of a detector, changed to these classes.

    Args:
        detector, class_names: as in `with_classes`.

    Raises:
        TypeError, ValueError: as `with_classes` does.

    Example:

    >>> from libra_keras.models import retinanet_small
    >>> from libra_keras.models.reheading import config_with_classes
    >>> config = config_with_classes(retinanet_small(num_classes=6), ["cat", "dog"])
    >>> config["class_names"], config["head"]["config"]["num_classes"]
    (['cat', 'dog'], 2)
    """
    names = _checked(class_names)
    config = detector.get_config()
    if "class_names" not in config:  # of a region proposal network
        return config
    config["class_names"] = names
    for part in detector.PARTS:
        own = config[part]["config"]
        if "num_classes" in own:
            config[part] = {**config[part], "config": {**own, "num_classes": len(names)}}
    return config


def rebuilt(detector, config, fresh=()):
    """Returns a detector of a changed config with the values of another one.

    Args:
        detector: where the values come from.
        config: dict as `detector.get_config()`, with changes that leave the number and the order
            of the variables.
        fresh: names of layers of its heads that keep the values they are initialised with; all
            others must have the shapes of the detector's.

    Raises:
        ValueError: if a variable has another shape.

    Example:

    >>> from libra_keras.models import rpn_small
    >>> from libra_keras.models.reheading import rebuilt
    >>> detector = rpn_small()
    >>> rebuilt(detector, {**detector.get_config(), "seed": 7}).seed
    7
    """
    made = type(detector).from_config(config)
    layers = [getattr(head, name) for head in made.heads() for name in fresh if hasattr(head, name)]
    kept = {id(variable) for layer in layers for variable in layer.weights}
    for old, new in zip(detector.weights, made.weights, strict=True):
        if id(new) in kept:
            continue
        if tuple(old.shape) != tuple(new.shape):
            raise ValueError(
                f"The values of {old.path} have the shape {tuple(old.shape)}; those of the new "
                f"detector must have {tuple(new.shape)}"
            )
        new.assign(old.value)
    return made


def _class_layers(head):
    return next((names for kind, names in CLASS_LAYERS if isinstance(head, kind)), ())


def _checked(class_names):
    if isinstance(class_names, str):
        raise TypeError(f"`class_names` must be a list of strings. Received: {class_names!r}")
    names = list(class_names)
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"`class_names` must hold at least one name, and each once. Received: {names}"
        )
    return names
