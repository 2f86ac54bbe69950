"""What detectors do about several devices, beside the sums in `functional.replicas`."""

import functools
import os

import keras
import numpy as np
from keras import ops

from libra_keras.backbones import ConvBatchNorm
from libra_keras.functional import native_gradients, replicas
from libra_keras.keras_private import layers_in, replace_loss_tracker, state_of
from libra_keras.models.inputs import as_batch


def check_scope(model):
    """Refuses to compile a model outside of the strategy that it was built under: each replica
    would move the optimizer's variables, and the weights of the replicas would part.
    """
    if keras.backend.backend() != "tensorflow":
        return
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1 and strategy is not _current_strategy():
        raise ValueError(
            f"The model was built under a {type(strategy).__name__}: compile it within "
            "`strategy.scope()` too, and create its optimizer there"
        )


def check_process(model):
    """Refuses a model in a fork of the process that it was built in, where it would wait for ever:
    the threads that TensorFlow and JAX compute with are not there.
    """
    if model.process != os.getpid() and keras.backend.backend() != "torch":
        raise RuntimeError(
            "This process was forked from the one that the detector was built in, and "
            f"{keras.backend.backend()} cannot compute in it. Start processes with "
            'multiprocessing.get_context("spawn"): a detector may be sent to them'
        )


def check_batch_norm(model):
    """Refuses batch normalisation that trains on the statistics of one replica of several: the file
    would hold those of the first, and a replica without images would turn them into NaN.
    """
    if keras.backend.backend() != "tensorflow":
        return
    count = model.distribute_strategy.num_replicas_in_sync
    if count == 1:
        return
    parts = [model.backbone, *model.neck, *model.heads()]
    plain = [layer for part in parts for layer in _plain_layers(part)]
    if plain:
        raise ValueError(
            f"The batch normalisation of {type(plain[0]).__name__} '{plain[0].name}' trains with "
            f"the statistics of each replica only, and there are {count}: their moving averages "
            "would diverge, and only one of them would be saved. Build the backbone with "
            'batch_norm="synchronized" or batch_norm="frozen"; Keras\' own layer with '
            "synchronized=True"
        )


def _plain_layers(part):
    """Layers in `part`, ours and Keras', that average the statistics of their own replica."""
    if getattr(part, "batch_norm", None) == "frozen":  # a `BackboneAdapter`'s layers do not know
        return []
    return [layer for layer in layers_in(part) if layer.trainable and _is_plain(layer)]


def _is_plain(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return not layer.synchronized
    return isinstance(layer, ConvBatchNorm) and layer.batch_norm == "trainable"


class Mean(keras.metrics.Mean):
    """Keras' mean, which counts no batch that there is not. At the end of data of unknown length
    TensorFlow starts one more step, which fails for want of a batch; what waits for none is done.
    """

    def update_state(self, values, sample_weight=None):
        with native_gradients.after(values):
            return super().update_state(values, sample_weight)


class LocalMean(Mean):
    """Mean of what one replica has seen, for values that are the same on all; Keras' own can be
    read only by all machines at once.
    """

    def add_variable(self, shape, initializer, dtype=None, aggregation=None, name=None):
        return super().add_variable(shape, initializer, dtype, "only_first_replica", name)


def replicated_mean(name):
    """Returns the metric that keeps the mean of a number that is the same on all replicas."""
    return (LocalMean if _spans_machines(_current_strategy()) else Mean)(name=name)


def track_loss(model):
    """Lets a model keep its loss on TensorFlow as `replicated_mean` does."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            replace_loss_tracker(model, replicated_mean("loss"))


def _current_strategy():
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy()


def _spans_machines(strategy):
    return strategy is not None and getattr(strategy.extended, "_num_workers", 1) > 1


def without_blank(outputs, data):
    """Takes away what a replica without images, in `data`, has found in the blank one."""
    if replicas.num_replicas() == 1:
        return outputs
    x = as_batch(keras.utils.unpack_x_y_sample_weight(data)[0])
    rows = ops.shape(x["images"] if isinstance(x, dict) else x)[0]
    return {key: value[:rows] for key, value in outputs.items()}


def predict_evenly(model, predict, x):
    """Predicts a batch of any size, each device of this machine an equal part of it; under a
    strategy Keras would let every replica predict all of it, and on JAX refuse what cannot be split
    evenly.
    """
    rows = len(x["images"] if isinstance(x, dict) else x)
    if keras.backend.backend() != "tensorflow":
        parts = _num_shards()
    elif model.distribute_strategy.num_replicas_in_sync == 1:
        parts = 1
    else:
        parts = len(model.distribute_strategy.extended.worker_devices)  # of this machine
        predict = functools.partial(_predict_parts, model, parts)
    missing = -rows % parts
    if not missing:
        return predict(x)
    filled = keras.tree.map_structure(lambda array: _with_copies(array, missing), x)
    return {key: value[:rows] for key, value in predict(filled).items()}


def _predict_parts(model, parts, x):
    """Predicts on the replicas of this machine; no other one takes part."""
    import tensorflow as tf

    strategy = model.distribute_strategy
    if model.has_changed("parts") or not hasattr(model, "_predict_parts"):

        @tf.autograph.experimental.do_not_convert
        def run(values):
            return strategy.run(model.predict_step, args=((values,),))

        model._predict_parts = tf.function(run, reduce_retracing=True)

    def part(i):
        return keras.tree.map_structure(lambda a: tf.constant(np.split(a, parts)[i]), x)

    values = [part(i) for i in range(parts)]
    values = strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group % parts]
    )
    return {
        key: np.concatenate([own.numpy() for own in strategy.experimental_local_results(value)])
        for key, value in model._predict_parts(values).items()
    }


def _num_shards():
    """Parts in which a batch is split by `keras.distribution`, which works on JAX."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]


def _with_copies(array, count):
    array = np.asarray(array)
    return np.concatenate([array, np.repeat(array[-1:], count, axis=0)])


@keras.saving.register_keras_serializable(package="libra_keras")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras' optimizer of this name, but it halves its scale when *any* replica overflows, not the
    first one alone.
    """

    def check_finite(self, grads):
        overflow = ops.logical_not(super().check_finite(grads))
        return ops.equal(replicas.sum_over_replicas(ops.cast(overflow, "float32")), 0.0)

    # The inner optimizer's variables are saved with that. Keras would save them here once more.

    def save_own_variables(self, store):
        for i, variable in enumerate(state_of(self)):
            store[str(i)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        for i, variable in enumerate(state_of(self)):
            variable.assign(store[str(i)])


def with_loss_scale(optimizer, policy):
    """Returns the optimizer, wrapped if the dtype policy of the model is `mixed_float16`."""
    optimizer = keras.optimizers.get(optimizer)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if optimizer is None or is_scaled or policy.name != "mixed_float16":
        return optimizer
    return LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
