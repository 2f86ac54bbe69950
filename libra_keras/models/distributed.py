"""What detectors do about several devices, beside the sums in `functional.replicas`."""

import keras
import numpy as np

from libra_keras.functional import replicas


def check_batch_norm(model):
    """Refuses batch normalisation that takes the statistics of one replica of several.

    Each replica would average other numbers, the file would hold those of the first, and a replica
    without images would turn them into NaN. Only TensorFlow's strategies have replicas.

    Args:
        model: detector; the strategy is the one that it was built under.

    Raises:
        ValueError: if there are several replicas and such a layer.

    Example:

    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.distributed import check_batch_norm
    >>> check_batch_norm(libra_faster_rcnn_small(num_classes=6))  # one device: all is well
    """
    if keras.backend.backend() != "tensorflow":
        return
    count = model.distribute_strategy.num_replicas_in_sync
    if count == 1:
        return
    backbone = model.backbone
    if hasattr(backbone, "batch_norm"):
        plain = [backbone] if backbone.batch_norm == "trainable" else []
    else:
        plain = _plain_layers(backbone)
    plain += [layer for part in [*model.neck, *model.heads()] for layer in _plain_layers(part)]
    if plain:
        raise ValueError(
            f"The batch normalisation of {type(plain[0]).__name__} '{plain[0].name}' trains with "
            f"the statistics of each replica alone, and there are {count}: their moving averages "
            "would drift apart, and one of them would be saved. Build the backbone with "
            'batch_norm="synchronized" or batch_norm="frozen"; Keras\' own layer with '
            "synchronized=True"
        )


def _plain_layers(part):
    """Layers of Keras in `part` that average the statistics of their own replica."""
    kind = keras.layers.BatchNormalization
    found = [layer for layer in part._flatten_layers() if isinstance(layer, kind)]
    return [layer for layer in found if layer.trainable and not layer.synchronized]


def without_blank(outputs, data):
    """Takes away what a replica without images has found in the blank one.

    Args:
        outputs: dict of tensors `(max(b, 1), ...)`.
        data: the batch of b images as Keras passes it to `predict_step`.

    Returns:
        Dict of tensors `(b, ...)`.

    Example:

    >>> from libra_keras.models.distributed import without_blank
    >>> without_blank({"scores": [[0.5]]}, [[0]])  # there is but one replica
    {'scores': [[0.5]]}
    """
    if replicas.num_replicas() == 1:
        return outputs
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    rows = keras.ops.shape(x["images"] if isinstance(x, dict) else x)[0]
    return {key: value[:rows] for key, value in outputs.items()}


def predict_evenly(predict, x):
    """Predicts a batch of any size where `keras.distribution` splits it over devices.

    Args:
        predict: function from a batch to a dict of arrays.
        x: dict of arrays, or images.

    Returns:
        What `predict` returns, for the rows of `x`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models.distributed import predict_evenly
    >>> predict_evenly(lambda x: {"sum": x.sum(1)}, np.ones((3, 2)))["sum"].tolist()
    [2.0, 2.0, 2.0]
    """
    rows = len(x["images"] if isinstance(x, dict) else x)
    missing = -rows % _num_shards()
    if not missing:
        return predict(x)
    filled = keras.tree.map_structure(lambda array: _with_copies(array, missing), x)
    return {key: value[:rows] for key, value in predict(filled).items()}


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
