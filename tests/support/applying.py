"""Gradients given to an optimizer by the backend's own path."""

import keras
from keras import ops


def run(optimizer, parameters, gradients):
    """Applies lists of gradients one after the other, and returns the parameters as arrays."""
    variables = [keras.Variable(p) for p in parameters]
    for step in gradients:
        apply(optimizer, variables, step)
    return [ops.convert_to_numpy(v) for v in variables]


def apply(optimizer, variables, gradients):
    """Applies one list of gradients."""
    gradients = [ops.convert_to_tensor(g) for g in gradients]
    if keras.backend.backend() == "tensorflow":
        optimizer.apply(gradients, variables)
        return
    if not optimizer.built:
        optimizer.build(variables)
    state = [v.value for v in optimizer.variables]
    new, state = optimizer.stateless_apply(state, gradients, [v.value for v in variables])
    for variable, value in zip(variables + optimizer.variables, new + state, strict=True):
        variable.assign(value)
