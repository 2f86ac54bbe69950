"""Detectors for programs without Keras."""

import importlib

__all__ = ["export_saved_model"]


def __getattr__(name):
    """Imports the exporter, and TensorFlow with it, when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.saved_model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
