"""The devices of one machine that a model trains on."""

import contextlib

import keras


class Devices:
    """One device, whichever the backend takes by itself; also the frame of the others.

    Several devices hold a copy of the model each, and share every batch: the update is that of one
    device on the whole batch.

    Attributes:
        names: tuple of str, the devices; empty where the backend chooses.
        is_chief: bool, whether this process measures, prints and writes files.
        batch_norm: what a `ResNet` that trains its batch normalisation is built with.

    Example:

    >>> from libra_keras.training.distribution import Devices
    >>> with Devices() as devices, devices.scope():
    ...     devices.num
    1
    """

    names = ()
    is_chief = True
    batch_norm = "trainable"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def num(self):
        """Number of parts in which a batch is split."""
        return max(len(self.names), 1)

    def scope(self):
        """Returns the context in which models and optimizers are built."""
        return contextlib.nullcontext()

    def agreed(self, number):
        """Returns the chief's number, if there are several processes."""
        return number

    def share(self, batches, start_step=0):
        """Returns what this process reads of `batches`, which `fit` is given."""
        return batches

    def fit(self, model, batches, **options):
        """Trains as `model.fit` does, which it calls wherever that works."""
        return model.fit(batches, **options)


class Replicas(Devices):
    """Devices of one machine as a `tf.distribute.MirroredStrategy`.

    Args:
        names: sequence of str such as `"GPU:0"`.

    Example:

    >>> from libra_keras.training.distribution import Replicas
    >>> Replicas(["GPU:0", "GPU:1"]).num
    2
    """

    batch_norm = "synchronized"

    def __init__(self, names):
        self.names = tuple(names)
        self._strategy = None

    def scope(self):
        """Returns the scope of the strategy, which is made at the first call."""
        import tensorflow as tf

        if self._strategy is None:
            self._strategy = tf.distribute.MirroredStrategy(list(self.names))
        return self._strategy.scope()


class Shards(Devices):
    """Devices of one machine as a `keras.distribution.DataParallel`, on JAX.

    One program sees the whole batch; JAX splits it. The distribution is Keras' global one while
    the context of this object lasts.

    Args:
        names: sequence of str as `keras.distribution.list_devices` returns them.

    Example:

    >>> from libra_keras.training.distribution import Shards
    >>> Shards(["cpu:0", "cpu:1"]).num
    2
    """

    def __init__(self, names):
        self.names = tuple(names)

    def __enter__(self):
        self._before = keras.distribution.distribution()
        parallel = keras.distribution.DataParallel(devices=list(self.names))
        keras.distribution.set_distribution(parallel)
        return self

    def __exit__(self, *error):
        keras.distribution.set_distribution(self._before)


def devices_of_machine(wanted=None):
    """Chooses devices of this machine.

    Args:
        wanted: number of devices, `"all"`, or `None` for one, without asking what there is.

    Returns:
        `Devices`, `Replicas` on TensorFlow, or `Shards` on JAX.

    Raises:
        ValueError: if there are not so many, or Keras cannot train on several with this backend.

    Example:

    >>> from libra_keras.training.distribution import devices_of_machine
    >>> devices_of_machine().num
    1
    """
    if wanted is None or wanted == 1:
        return Devices()
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ValueError(
            "Several devices need TensorFlow or JAX as Keras' backend: Keras has no way to train "
            f"on several with this one. Received: backend={backend!r}, devices={wanted}"
        )
    names = _names(backend)
    count = len(names) if wanted == "all" else wanted
    if not 1 <= count <= len(names):
        raise ValueError(
            f"Expected 1 to {len(names)} devices, since this machine has {', '.join(names)}. "
            f"Received: {wanted}"
        )
    if count == 1:
        return Devices()
    return (Replicas if backend == "tensorflow" else Shards)(names[:count])


def _names(backend):
    """The GPUs of this machine, or where there is none its logical CPUs."""
    if backend == "jax":
        return keras.distribution.list_devices()
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in found]
