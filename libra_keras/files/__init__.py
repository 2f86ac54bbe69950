"""What is written to disk: whole or not at all, by one process at a time, over nobody's work.

For the rest of the package, not for users. Nothing here imports Keras or a backend.
"""

__all__: list[str] = []
