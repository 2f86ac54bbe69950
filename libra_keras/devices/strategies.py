"""The devices of one machine that a model trains on."""

import contextlib
from collections.abc import Iterable
from typing import Any, Literal, Self

import keras

from libra_keras.devices.hardware import TooLate, tensorflow_has_started
from libra_keras.devices.unread_logs import UnreadLogs


class Devices:
    """One device, whichever the backend chooses; also the base of the others.

    With several devices, each has a copy of the model and a share of every batch: the update equals
    that of one device on the whole batch.

    Attributes:
        names: the devices; empty where the backend chooses.
        batch_norm: the `batch_norm` of a `ResNet` that trains its batch normalisation.

    Example:

    >>> from libra_keras.devices import Devices
    >>> with Devices() as devices, devices.scope():
    ...     devices.num
    1
    """

    names: tuple[str, ...] = ()
    batch_norm: str = "trainable"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    @property
    def num(self) -> int:
        """Number of parts in which a batch is split."""
        return max(len(self.names), 1)

    @property
    def is_chief(self) -> bool:
        """Whether this process measures, prints and writes files."""
        return True

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the context in which models and optimizers are built."""
        return contextlib.nullcontext()

    def agreed(self, number: int) -> int:
        """Returns the chief's number, if there are several processes."""
        return number

    def share(self, batches: Any, start_step: int = 0) -> Any:
        """Returns what this process reads of `batches`, which `fit` is given."""
        return batches

    def fit(
        self,
        model: keras.Model,
        batches: Any,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        verbose: str | int = "auto",
        **options: Any,
    ) -> Any:
        """Trains as `model.fit` does, which it calls wherever that works. After a batch, callbacks
        may get tensors in place of floats, which need not be computed yet."""
        calls = UnreadLogs(
            list(callbacks),
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=options.get("epochs", 1),
            steps=options.get("steps_per_epoch"),
        )
        return model.fit(batches, callbacks=calls, verbose=verbose, **options)


class Replicas(Devices):
    """Devices of one machine as a `tf.distribute.MirroredStrategy`.

    Args:
        names: such as `"GPU:0"`.
        strategy: `tf.distribute.Strategy` of these devices. By default one is created when its
            scope is first requested.

    Example:

    >>> from libra_keras.devices import Replicas
    >>> Replicas(["GPU:0", "GPU:1"]).num
    2
    """

    batch_norm = "synchronized"

    def __init__(self, names: Iterable[str], strategy: Any = None):
        self.names = tuple(names)
        self._strategy = strategy

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the scope of the strategy."""
        import tensorflow as tf

        if self._strategy is None:
            self._strategy = tf.distribute.MirroredStrategy(list(self.names))
        return self._strategy.scope()


class Shards(Devices):
    """Devices of one machine as a `keras.distribution.DataParallel`, on JAX.

    One program sees the whole batch; JAX splits it. The distribution is Keras' global one while
    the context of this object lasts.

    Args:
        names: as `keras.distribution.list_devices` returns them.
        distribution: `keras.distribution.Distribution` of these devices. By default a
            `DataParallel` is made when the context is entered.

    Example:

    >>> from libra_keras.devices import Shards
    >>> Shards(["cpu:0", "cpu:1"]).num
    2
    """

    def __init__(self, names: Iterable[str], distribution: Any = None):
        self.names = tuple(names)
        self._distribution = distribution

    def __enter__(self) -> Self:
        self._before = keras.distribution.distribution()
        if self._distribution is None:
            self._distribution = keras.distribution.DataParallel(devices=list(self.names))
        keras.distribution.set_distribution(self._distribution)
        return self

    def __exit__(self, *error: Any) -> None:
        keras.distribution.set_distribution(self._before)

    @property
    def num(self) -> int:
        """Number of parts in which a batch is split; other axes of a mesh split the model."""
        if self._distribution is None:
            return super().num
        mesh = self._distribution.device_mesh
        return mesh.shape[mesh.axis_names.index(self._distribution.batch_dim_name)]


def devices_of_machine(wanted: int | Literal["all"] | None = None) -> Devices:
    """Chooses devices of this machine.

    Args:
        wanted: number of devices, `"all"`, or `None` for one, without looking up which exist.

    Returns:
        `Devices`, `Replicas` on TensorFlow, or `Shards` on JAX.

    Raises:
        ValueError: if there are fewer devices, or Keras cannot train on several with this backend.
        TooLate: if there could have been enough devices, had TensorFlow not started already. It is
            a `ValueError` too.

    Example:

    >>> from libra_keras.devices import devices_of_machine
    >>> devices_of_machine().num
    1
    """
    if wanted is None or wanted == 1:
        return Devices()
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ValueError(
            "Several devices require TensorFlow or JAX as the Keras backend: Keras cannot train "
            f"on several with this one. Received: backend={backend!r}, devices={wanted}"
        )
    had_started = backend == "tensorflow" and tensorflow_has_started()
    names = _names(backend)
    count = len(names) if wanted == "all" else wanted
    if not 1 <= count <= len(names):
        raise _refusal(names, count, had_started)
    if count == 1:
        return Devices()
    return (Replicas if backend == "tensorflow" else Shards)(names[:count])


def devices_of(model: keras.Model) -> Devices:
    """Returns the devices that a model was built on, to train it there.

    Returns:
        On TensorFlow `Replicas` of the model's own strategy, if that has several; on JAX `Shards`
        of Keras' global distribution, if there is one; else `Devices`.

    Raises:
        ValueError: if the model was built under a strategy of several machines.

    Example:

    >>> import keras
    >>> from libra_keras.devices import devices_of
    >>> devices_of(keras.Sequential([keras.layers.Dense(1)])).num
    1
    """
    if keras.backend.backend() == "tensorflow":
        return _of_strategy(model.distribute_strategy)
    distribution = keras.distribution.distribution()
    if keras.backend.backend() != "jax" or distribution is None:
        return Devices()
    return Shards(map(str, distribution.device_mesh.devices.flat), distribution)


def _of_strategy(strategy: Any) -> Devices:
    count = strategy.num_replicas_in_sync
    if count == 1:
        return Devices()
    names = [name.rpartition("device:")[2] for name in strategy.extended.worker_devices]
    if len(names) != count:
        raise ValueError(
            f"The model was built under a {type(strategy).__name__} of several machines, which "
            "Keras' `fit` does not support: build it in the scope of a `Cluster`"
        )
    return Replicas(names, strategy)


def _names(backend: str) -> list[str]:
    """The GPUs of this machine, or where there is none its logical CPUs."""
    if backend == "jax":
        return keras.distribution.list_devices()
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in found]


def _refusal(names: list[str], count: int, had_started: bool) -> ValueError:
    """The error over a number of devices that there are not."""
    refusal = (
        f"Expected 1 to {len(names)} devices: this machine has {', '.join(names)}. "
        f"Received: {count}"
    )
    missed = _missed(count) if had_started and count > len(names) else None
    if missed is None:
        return ValueError(refusal)
    return TooLate(
        f"{refusal}. It is too late to {missed}: TensorFlow has started already, with "
        f"{', '.join(names)}. Do it before anything is computed"
    )


def _missed(count: int) -> str | None:
    """What could have given TensorFlow so many devices before it started."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "split the CPU into more logical devices"
    return f"let it see all {len(gpus)} GPUs of this machine" if len(gpus) >= count else None
