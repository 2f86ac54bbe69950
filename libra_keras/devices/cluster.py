"""Several machines that train one model on TensorFlow, where Keras' `fit` does not run."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Self

import keras
import numpy as np

from libra_keras.devices.peers import Peers, WorkerLost
from libra_keras.devices.strategies import Devices

Logs = dict[str, float]


class Cluster(Devices):
    """The machines that `TF_CONFIG` names, as a `tf.distribute.MultiWorkerMirroredStrategy`.

    Every machine runs the same program with its own number. Each reads its share of every batch;
    the first one, the chief, measures, prints and writes. It must be created before TensorFlow has
    done anything else, and waits until all machines have joined.

    Args:
        config: JSON as in the environment variable `TF_CONFIG`:
            `{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`.
            Defaults to that variable.

    Raises:
        ValueError: if the configuration is missing or not as above, or the backend is not
            TensorFlow.

    Example:

    >>> from libra_keras.devices import Cluster
    >>> Cluster("{}")
    Traceback (most recent call last):
    ValueError: TF_CONFIG must be JSON such as {"cluster": {"worker": ["host0:2222", "host1:2222"]\
}, "task": {"type": "worker", "index": 0}}. Received: {}
    """

    batch_norm = "synchronized"

    def __init__(self, config: str | None = None):
        config = os.environ.get("TF_CONFIG") if config is None else config
        self._peers = Peers(config)
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "A cluster requires TensorFlow as the Keras backend. "
                f"Received: backend={keras.backend.backend()!r}"
            )
        self._strategy: Any = None
        self._start = 0  # the batch of the run that `fit` begins with

    def __enter__(self) -> Self:
        import tensorflow as tf

        with self._explained():
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        local = len(self._strategy.extended.worker_devices)
        self.names = tuple(f"{worker}/{i}" for worker in self._peers.workers for i in range(local))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            with self._explained():
                raise error

    @property
    def is_chief(self) -> bool:
        """Whether this is the first of the workers."""
        return self._peers.index == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the scope of the strategy."""
        return self._strategy.scope()

    def agreed(self, number: int) -> int:
        """Returns the chief's number on every worker."""
        return int(self._from_chief([np.asarray(number)])[0])

    def share(self, batches: Any, start_step: int = 0) -> Any:
        """Returns this worker's share of batches, as a distributed data set.

        Args:
            batches: the result of `data.training_batches`.
            start_step: the batch of the run to begin with.
        """
        share = Share(batches.source, self._peers.index, len(self._peers.workers), self.num)
        own = self._strategy.distribute_datasets_from_function(lambda _: share.batches(start_step))
        own.source, self._start = batches.source, start_step
        return own

    # `model.fit` can do without these numbers; endless batches of several processes cannot.
    def fit(  # type: ignore[override]
        self,
        model: keras.Model,
        batches: Any,
        steps_per_epoch: int,
        epochs: int,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **_: Any,
    ) -> None:
        """Trains as `model.fit` does: its steps, its order of callbacks.

        Args:
            model: detector built and compiled in the scope. All workers begin with the chief's
                variables.
            batches: the result of `share`.
            steps_per_epoch, epochs, initial_epoch, callbacks: as for `model.fit`.
        """
        self._take_variables(model)
        calls = keras.callbacks.CallbackList(
            list(callbacks), model=model, epochs=epochs, steps=steps_per_epoch, verbose=0
        )
        step = self._step(model, batches)
        steps, logs = steps_per_epoch - self._start % steps_per_epoch, {}  # left of the first epoch
        model.stop_training = False
        self._peers.watch()
        calls.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            logs = _epoch(model, epoch, steps, step, calls)
            if model.stop_training:
                break
            steps = steps_per_epoch
        model.optimizer.finalize_variable_values(model.trainable_weights)
        calls.on_train_end(logs)
        self._peers.stop_watching()
        self.agreed(0)  # nobody leaves while another one still measures

    def _take_variables(self, model: keras.Model) -> None:
        """Gives a model the chief's variables."""
        variables = {id(v): v for v in [*model.variables, *model.optimizer.variables]}.values()
        values = self._from_chief([keras.ops.convert_to_numpy(v) for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _step(self, model: keras.Model, batches: Any) -> Callable[[], Logs]:
        """A function that trains on one more batch, and returns the metrics after it."""
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def step(iterator):
            return self._strategy.run(model.train_step, args=(next(iterator),))

        step, iterator = tf.function(step), iter(batches)
        local = self._strategy.experimental_local_results
        # All replicas report the same: `replicas.with_global_value`.
        return lambda: {name: float(local(v)[0]) for name, v in step(iterator).items()}

    def _from_chief(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays on every worker; all workers give arrays of the same shapes."""
        import tensorflow as tf

        def own(values):
            context = tf.distribute.get_replica_context()
            is_first = tf.equal(context.replica_id_in_sync_group, 0)
            values = [tf.where(is_first, value, tf.zeros_like(value)) for value in values]
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        # Exact for float32 and for integers up to 2 ** 53.
        values = [tf.constant(value, tf.float64) for value in values]
        results = tf.function(lambda values: self._strategy.run(own, args=(values,)))(values)
        return [self._strategy.experimental_local_results(each)[0].numpy() for each in results]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says which worker has gone, where TensorFlow says that a connection has."""
        import tensorflow as tf

        try:
            yield
        except (tf.errors.OpError, RuntimeError) as error:
            lost = self._peers.silent()
            if not lost and not isinstance(error, tf.errors.UnavailableError):
                raise
            raise WorkerLost(
                self._peers.message(lost or self._peers.named_in(str(error)))
            ) from error


class Share:
    """One worker's part of every batch, in parts for its devices: all workers' parts, joined in
    their order, are the batches of one machine."""

    def __init__(self, source: Any, index: int, num_workers: int, num_replicas: int):
        batch_size = source.plan.batch_size
        if batch_size % num_replicas or num_replicas % num_workers:
            raise ValueError(
                f"{num_replicas} devices of {num_workers} workers cannot share {batch_size} images"
            )
        self.data, self.inputs, self.max_boxes = source.data, source.inputs, source.max_boxes
        self.parts = num_replicas // num_workers
        self.plan = SimpleNamespace(batch_size=batch_size // num_replicas)
        self._source = source
        self._first = index * (batch_size // num_workers)

    def sample(self, number: int) -> Any:
        """Returns a sample by its position in this share, as `TrainingSource.sample` does."""
        batch, place = divmod(int(number), self.parts * self.plan.batch_size)
        return self._source.sample(batch * self._source.plan.batch_size + self._first + place)

    def batches(self, start_step: int = 0) -> Any:
        """Returns an endless `tf.data.Dataset` of the parts, one for each device in turn."""
        from libra_keras.data import pipeline

        return pipeline.training(self, start_step * self.parts, None)


def _epoch(
    model: keras.Model,
    epoch: int,
    steps: int,
    step: Callable[[], Logs],
    calls: keras.callbacks.CallbackList,
) -> Logs:
    """Trains for an epoch, and returns its last metrics."""
    model.reset_metrics()
    calls.on_epoch_begin(epoch)
    for number in range(steps):
        calls.on_train_batch_begin(number)
        logs = step()
        calls.on_train_batch_end(number, logs)
        if model.stop_training:
            break
    calls.on_epoch_end(epoch, logs)
    return logs
