"""Pure functions of tensors, in `keras.ops`: one module per topic."""

import inspect

import keras

from libra_keras.functional import (
    anchors,
    argument_checks,
    attention,
    boxes,
    control_flow,
    gathering,
    matching,
    native,
    nms,
    random_keys,
    ranking,
    resize,
    roi_align,
    sampling,
)
from libra_keras.registration import register_classes

__all__ = [
    "anchors",
    "argument_checks",
    "attention",
    "boxes",
    "control_flow",
    "gathering",
    "matching",
    "native",
    "nms",
    "random_keys",
    "ranking",
    "resize",
    "roi_align",
    "sampling",
]
_register = keras.saving.register_keras_serializable

# Files name these by the module that they were in before. The last name given is the one saved.
for _function in (sampling.hardest_first, sampling.choose_hardest):
    _register("libra_keras", f"hard_examples.{_function.__name__}")(_function)
# A `Lambda` layer of a function, as of `resize.adaptive_max_pool`, is saved by its name alone.
# Known under it, as "libra_keras>resize.adaptive_max_pool", the function is found again.
for _module in __all__:
    for _name, _function in inspect.getmembers(globals()[_module], inspect.isfunction):
        if _function.__module__ == f"{__name__}.{_module}" and not _name.startswith("_"):
            _register("libra_keras", f"{_module}.{_name}")(_function)

register_classes()
