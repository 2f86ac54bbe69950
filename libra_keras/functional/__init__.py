"""Pure functions of tensors, in `keras.ops`: one module per topic."""

import inspect

import keras

from libra_keras.functional import (
    anchors,
    argument_checks,
    boxes,
    control_flow,
    hard_examples,
    matching,
    native,
    nms,
    random_keys,
    ranking,
    resize,
    roi_align,
    roi_taps,
    sampling,
)
from libra_keras.registration import register_classes

__all__ = [
    "anchors",
    "argument_checks",
    "boxes",
    "control_flow",
    "hard_examples",
    "matching",
    "native",
    "native_pooling",
    "nms",
    "random_keys",
    "ranking",
    "resize",
    "roi_align",
    "roi_taps",
    "sampling",
]

# A `Lambda` layer of one of them, as of `resize.adaptive_max_pool`, is saved by the function's name
# alone. Known under it, as "libra_keras>resize.adaptive_max_pool", the function is found again.
for _module in (
    boxes,
    hard_examples,
    matching,
    nms,
    random_keys,
    ranking,
    resize,
    roi_align,
    sampling,
):
    for _name, _function in inspect.getmembers(_module, inspect.isfunction):
        if _function.__module__ == _module.__name__ and not _name.startswith("_"):
            _name = f"{_module.__name__.rpartition('.')[2]}.{_name}"
            keras.saving.register_keras_serializable("libra_keras", _name)(_function)

register_classes()
