"""Weights averaged over the updates of a training, in the place of the last ones."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops

from libra_keras.keras_private import averages_of, batches_of, trained_by


def has_averages(model: keras.Model) -> bool:
    """Whether the optimizer of a model averages its weights (`use_ema`, or `average_from`)."""
    return bool(getattr(_optimizer(model), "use_ema", False))


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Gives a model the moving averages of its optimizer, if there are any, during the block."""
    # Keras' own callback `SwapEMAWeights` works with `evaluate` alone, which detectors are not
    # measured by.
    optimizer = _optimizer(model)
    # The variable is that of batches; under a strategy, `int` would not take it as it is.
    if not (
        has_averages(model) and optimizer.built and int(ops.convert_to_numpy(batches_of(optimizer)))
    ):
        yield
        return
    variables = trained_by(optimizer)
    own = _copies(variables)
    # Copies: on JAX, predicting gives away the memory of weights, which would be the averages'.
    _assign(variables, _copies(averages_of(optimizer)))
    try:
        yield
    finally:
        _assign(variables, own)


def _copies(variables):
    return [ops.convert_to_numpy(variable).copy() for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _optimizer(model):
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)  # of a `LossScaleOptimizer`
