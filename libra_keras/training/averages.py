"""Weights averaged over the updates of a training, in the place of the last ones."""

import contextlib

from keras import ops


def has_averages(model):
    """Whether the optimizer of a model averages its weights (`use_ema`, or `average_from`).

    Args:
        model: `keras.Model`.

    Example:

    >>> import keras
    >>> from libra_keras.training.averages import has_averages
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1, use_ema=True))
    >>> has_averages(model)
    True
    """
    return bool(getattr(_optimizer(model), "use_ema", False))


@contextlib.contextmanager
def averaged_weights(model):
    """Within this context the model has the moving averages that its optimizer keeps.

    Afterwards it has its own weights again, bit for bit. Nothing happens where there are no
    averages: without `use_ema`, or before the first update. Weights that do not train, among them
    the statistics of batch normalisation, are the same in both. (Keras' own callback
    `SwapEMAWeights` works with `evaluate` alone, which detectors are not measured by.)

    Args:
        model: `keras.Model`.

    Example:

    >>> import keras
    >>> from libra_keras.training.averages import averaged_weights
    >>> from libra_keras.training import SGD
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> _ = model.layers[0].kernel.assign([[3.0]])
    >>> model.compile(SGD(1.0, 0.0, weight_decay=0.0, use_ema=True, ema_momentum=0.5))
    >>> for _ in range(2):  # 3 - 1 = 2, and then 1; their average is 1.5
    ...     model.optimizer.apply([keras.ops.ones((1, 1))], model.trainable_variables)
    >>> with averaged_weights(model):
    ...     float(model.get_weights()[0][0, 0])
    1.5
    >>> float(model.get_weights()[0][0, 0])
    1.0
    """
    optimizer = _optimizer(model)
    # The variable is that of batches; under a strategy, `int` would not take it as it is.
    if not (
        has_averages(model) and optimizer.built and int(ops.convert_to_numpy(optimizer._iterations))
    ):
        yield
        return
    variables = optimizer._trainable_variables
    own = _copies(variables)
    # Copies: on JAX, predicting gives away the memory of weights, which would be the averages'.
    _assign(variables, _copies(optimizer._model_variables_moving_average))
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
