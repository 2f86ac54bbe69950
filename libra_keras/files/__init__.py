"""What is written to disk: whole or not at all, by one process at a time, over nobody's work.

Nothing here imports Keras or a backend.
"""

from libra_keras.files import atomic, locks, replacing

__all__ = ["atomic", "locks", "replacing"]
