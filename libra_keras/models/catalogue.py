"""The names of all ready-made detectors."""

import fnmatch

from libra_keras.models import constructors


def list(pattern="*"):
    """Returns the names of the ready-made detectors.

    `getattr(libra_keras.models, name)` is the function that builds one.

    Args:
        pattern: str, as of file names: `*` stands for anything, `?` for one character.

    Returns:
        Sorted list of strings.

    Example:

    >>> from libra_keras import models
    >>> models.list("libra_retinanet_*")
    ['libra_retinanet_resnet101', 'libra_retinanet_resnet50', 'libra_retinanet_small']
    >>> models.list("*_yolo_*")
    []
    """
    return sorted(fnmatch.filter(constructors.__all__, pattern))
