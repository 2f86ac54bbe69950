"""A detector rebuilt with other arguments: what its config becomes, and which values it keeps."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import keras

from libra_keras.models.box_head import BoxHead
from libra_keras.models.detector import Detector
from libra_keras.models.retina_head import RetinaHead
from libra_keras.models.settings import CLASSES

AnyDetector = TypeVar("AnyDetector", bound=Detector)
Saved = dict[str, Any]

# The last layers of each kind of head whose outputs count classes. The deltas of a `RetinaHead`
# are one box an anchor, whatever is in it.
CLASS_LAYERS = ((BoxHead, ("class_logits", "box_deltas")), (RetinaHead, ("class_logits",)))


def with_classes(detector: AnyDetector, class_names: Sequence[str]) -> AnyDetector:
    """Returns a copy of a detector that finds other classes; the given one stays as it is.

    All values are copied except those of the last layers whose outputs belong to classes: these are
    initialised again, also for names that both have, as in mmdetection. If the names are the
    detector's own in the same order, nothing is initialised again. A `RegionProposalNetwork` knows
    no classes: its copy is complete. `models.rebuilding.reheaded_layers` names the layers that are
    initialised again.

    Args:
        detector: `FasterRCNN`, `FastRCNN`, `RetinaNet` or `RegionProposalNetwork`.
        class_names: list of K strings.

    Returns:
        A detector of the same kind, architecture and settings; it is not compiled.

    Raises:
        TypeError: if `class_names` is a string, or contains anything other than strings.
        ValueError: if `class_names` is empty, or contains a name twice.

    Example:

    >>> from libra_keras.models import retinanet_small, with_classes
    >>> shapes = retinanet_small(num_classes=6)
    >>> pets = with_classes(shapes, ["cat", "dog"])
    >>> pets.num_classes, pets.class_names, shapes.num_classes
    (2, ['cat', 'dog'], 6)
    """
    config = config_with_classes(detector, class_names)
    return rebuilt(detector, config, fresh=reheaded_layers(detector, class_names))


def reheaded_layers(detector: Detector, class_names: Sequence[str] | None) -> list[str]:
    """Returns the attributes of heads that `with_classes` initialises again; names that are not
    known count as different ones.
    """
    own = detector.class_names
    if own is not None and class_names is not None and own == list(class_names):
        return []
    return [
        name
        for head in detector.heads()
        for kind, names in CLASS_LAYERS
        if isinstance(head, kind)
        for name in names
    ]


def config_with_classes(
    detector: Detector, class_names: Sequence[str] | None, num_classes: int | None = None
) -> Saved:
    """Returns the config of a detector, changed to these classes, or to as many without names."""
    names = None if class_names is None else _checked(class_names)
    count = num_classes if names is None else len(names)
    if num_classes not in (None, count):
        raise ValueError(
            f"`class_names` must have one name for each of {num_classes} classes. Received: {names}"
        )
    count = CLASSES.check("`num_classes`", count)
    config = detector.get_config()
    if "class_names" not in config:  # of a region proposal network
        return config
    config["class_names"] = names
    for part in detector.PARTS:
        if "num_classes" in config[part]["config"]:
            config[part] = changed(config[part], num_classes=count)
    return config


def config_with_policy(config: Any, new: str, old: str | None = None) -> Any:
    """Returns a config with the dtype policy `new`, in place of `old` alone or of any."""
    if isinstance(config, (list, tuple)):
        return type(config)(config_with_policy(item, new, old) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and old in (None, config["config"].get("name")):
        return changed(config, name=new)
    return {key: config_with_policy(value, new, old) for key, value in config.items()}


def with_policy(detector: AnyDetector, policy: str) -> AnyDetector:
    """Returns a copy of a detector whose layers compute with a dtype policy."""
    return rebuilt(detector, config_with_policy(detector.get_config(), policy))


def config_with_batch_norm(config: Saved, batch_norm: str) -> Saved:
    """Returns a detector's config whose backbone normalises so, if it trains its normalisation."""
    backbone = config["backbone"]
    if backbone["config"].get("batch_norm") not in ("trainable", "synchronized"):
        return config
    return {**config, "backbone": changed(backbone, batch_norm=batch_norm)}


def config_with_sampling_ratio(config: Saved, ratio: int) -> Saved:
    """Returns the config of a detector with a second stage with that ratio of its RoIAlign."""
    head = config["box_head"]
    align = changed(head["config"]["roi_align"], sampling_ratio=ratio)
    return {**config, "box_head": changed(head, roi_align=align)}


def changed(saved: Saved, **values: Any) -> Saved:
    """Returns a serialised object with other arguments."""
    return {**saved, "config": {**saved["config"], **values}}


def rebuilt(detector: AnyDetector, config: Saved, fresh: Iterable[str] = ()) -> AnyDetector:
    """Returns a detector of a changed config with the values of another one, but for the layers of
    heads in `fresh`, which keep what they are initialised with.
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


def with_neck(detector: AnyDetector, neck: list[keras.layers.Layer]) -> AnyDetector:
    """Returns a detector with another neck; its other layers are used, not copied."""
    own = ("backbone", "normalization", *detector.PARTS)
    live = {name: getattr(detector, name) for name in own}
    return type(detector).from_config({**detector.get_config(), **live, "neck": neck})


def _checked(class_names):
    names = list(class_names)
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`class_names` must be a list of strings. Received: {class_names!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"`class_names` must contain at least one name, and each only once. Received: {names}"
        )
    return names
