"""Callbacks that are called before a batch has been computed."""

from typing import Any

import keras


class UnreadLogs(keras.callbacks.CallbackList):
    """Calls callbacks as Keras does, but passes the logs of training batches on as tensors.

    Keras makes floats of them, and so waits for every batch: meanwhile a GPU gets nothing new to
    do. Here it waits only if a callback reads a number.

    Args:
        callbacks: list of `keras.callbacks.Callback`.
        **options: as for `keras.callbacks.CallbackList`.

    Example:

    >>> import keras
    >>> from keras import ops
    >>> from libra_keras.devices.unread_logs import UnreadLogs
    >>> shown = keras.callbacks.LambdaCallback(
    ...     on_train_batch_end=lambda batch, logs: print(ops.is_tensor(logs["loss"])))
    >>> UnreadLogs([shown]).on_train_batch_end(0, {"loss": ops.ones(())})
    True
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = dict(sorted((logs or {}).items()))  # in the order of Keras
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)
