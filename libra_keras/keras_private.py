"""What this package uses of Keras that Keras calls private: here, and nowhere else.

What our optimizers and detectors override of it is in `OVERRIDDEN`. Tests fail by name when Keras
moves something.
"""

import contextlib

import keras

OVERRIDDEN = {
    keras.optimizers.Optimizer: (
        "_get_current_learning_rate",
        "_apply_weight_decay",
        "_backend_apply_gradients",
        "_all_reduce_sum_gradients",
    ),
    keras.Model: ("_maybe_symbolic_build",),
}


def imagenet_file(network):
    """Address and MD5 of the ImageNet weights of a ResNet without its classifier."""
    from keras.src.applications import resnet

    name = network.lower()
    file = f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return f"{resnet.BASE_WEIGHTS_PATH}{file}", resnet.WEIGHTS_HASHES[name][1]


def layers_in(layer, include_self=True):
    """A layer and all layers in it, however deep."""
    return list(layer._flatten_layers(include_self=include_self))


def own_variables(layer):
    """Variables that a layer holds itself, without those of layers in it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def call_that_made(tensor):
    """The call of a layer, a node of the graph, that a symbolic tensor came out of."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def has_compiled_metrics(model):
    """Whether `compile` was given metrics."""
    return model._compile_metrics is not None


def replace_loss_tracker(model, metric):
    """Gives a compiled model another metric that keeps the mean of its loss."""
    # Past Keras' tracking, as in its own `compile`: it takes no state after building.
    object.__setattr__(model, "_loss_tracker", metric)


def state_of(optimizer):
    """Variables of an optimizer itself, without those of one that it wraps."""
    return optimizer._variables


def batches_of(optimizer):
    """The variable that counts batches; `iterations` counts updates, of several batches each."""
    return optimizer._iterations


def given_rate(optimizer):
    """The learning rate as it was given: a variable, or a schedule."""
    return optimizer._learning_rate


def trained_by(optimizer):
    """The variables that an optimizer trains."""
    return optimizer._trainable_variables


def averages_of(optimizer):
    """The moving averages of these, in their order."""
    return optimizer._model_variables_moving_average


def place_of(optimizer, variable):
    """Position of a variable among those that an optimizer trains."""
    return optimizer._get_variable_index(variable)


def places_in_fit(model):
    """Where Keras keeps the values of variables while `fit` runs on JAX."""
    groups = {
        "optimizer_variables": model.optimizer.variables,
        "non_trainable_variables": model.non_trainable_variables,
    }
    return {id(v): (name, i) for name, group in groups.items() for i, v in enumerate(group)}


def value_in_fit(model, places, variable):
    """A variable, or on JAX its value where that is, while `fit` runs, newer.

    A callback's `model` would bring all variables up to date, which delays the next batch.
    """
    state = getattr(model, "_jax_state", None)
    if not state or model._jax_state_synced or id(variable) not in places:
        return variable
    name, i = places[id(variable)]
    return state[name][i]


def key_of(optimizer, variable):
    """What tells variables apart, also those of several replicas."""
    return optimizer._var_key(variable)


def decays(optimizer, variable):
    """Whether weight decay applies to a variable."""
    return optimizer._use_weight_decay(variable)


def gradient_sums(optimizer):
    """Variables of the gradients that accumulate, in the order of what is trained."""
    return optimizer._accumulated_gradients


def adam_moments(optimizer, place):
    """First and second moment of the variable at a place."""
    return optimizer._momentums[place], optimizer._velocities[place]


def clipped(optimizer, gradients):
    """Gradients, clipped as an optimizer was told."""
    return optimizer._clip_gradients(gradients)


def update(optimizer, gradients, variables):
    """Applies gradients with the present rate, as the backend does it."""
    optimizer._backend_update_step(gradients, variables, optimizer.learning_rate)


def add_to_sums(optimizer, gradients, sums):
    """Adds gradients to those that accumulate, as the backend does it."""
    optimizer._backend_increment_gradient_accumulators(gradients, sums)


@contextlib.contextmanager
def without_values():
    """Context in which the variables of new layers have shapes and types, but take no memory."""
    from keras.src.backend.common import global_state

    waiting = "uninitialized_variables"  # Keras would give values to these later
    before = list(global_state.get_global_attribute(waiting, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(waiting, before)
