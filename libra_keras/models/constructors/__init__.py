"""Named detectors: the only place for the papers' numbers."""

import builtins
import fnmatch

from libra_keras.models.constructors import fast_rcnn, faster_rcnn, retinanet, rpn
from libra_keras.models.constructors.fast_rcnn import *
from libra_keras.models.constructors.faster_rcnn import *
from libra_keras.models.constructors.retinanet import *
from libra_keras.models.constructors.rpn import *

# All but `list`. In this form type checkers understand it.
__all__: builtins.list[str] = []
__all__ += fast_rcnn.__all__
__all__ += faster_rcnn.__all__
__all__ += retinanet.__all__
__all__ += rpn.__all__


def list(pattern: str = "*") -> builtins.list[str]:
    """Returns the names of the ready-made detectors.

    `getattr(libra_keras.models, name)` is the function that builds one.

    Args:
        pattern: str, as for file names: `*` stands for anything, `?` for one character.

    Returns:
        Sorted list of strings.

    Example:

    >>> from libra_keras import models
    >>> models.list("libra_retinanet_*")
    ['libra_retinanet_resnet101', 'libra_retinanet_resnet50', 'libra_retinanet_small']
    >>> models.list("*_yolo_*")
    []
    """
    return sorted(fnmatch.filter(__all__, pattern))
