"""Detectors for programs without Keras."""

import importlib

__all__ = ["ExportOptions", "export_saved_model"]

_MODULES = {"ExportOptions": "options", "export_saved_model": "saved_model"}


def __getattr__(name):
    """Imports an exporter, and TensorFlow with it, when it is first used."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
