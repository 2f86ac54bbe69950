"""The part of a training run's batches that one of several machines reads."""

from types import SimpleNamespace
from typing import Any


class Share:
    """What one of several workers reads: its part of every batch, in parts for its devices.

    The parts of all workers, joined in their order, are the batches of one machine.

    Args:
        source: `TrainingSource` of the whole batches.
        index: int, which of the workers.
        num_workers: int.
        num_replicas: int, devices of all workers together; it must divide the batch.

    Raises:
        ValueError: if it does not.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.data.loading import TrainingSource
    >>> from libra_keras.devices.share import Share
    >>> source = TrainingSource(data.shapes(8), data.InputPolicy(160, 160), batch_size=4)
    >>> share = Share(source, index=1, num_workers=2, num_replicas=2)
    >>> int(share.sample(2)[3]) == int(source.sample(6)[3])  # the second batch's third image
    True
    """

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
        """Returns an endless `tf.data.Dataset` of the parts, one for each device in turn.

        Args:
            start_step: int, the batch of the run that it begins with.
        """
        from libra_keras.data import pipeline

        return pipeline.training(self, start_step * self.parts, None)
