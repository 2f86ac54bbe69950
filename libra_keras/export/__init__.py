"""Detectors for programs without Keras."""

import importlib

__all__ = [
    "ExportOptions",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_saved_model",
]

_FORMATS = ("litert", "onnx", "openvino", "saved_model")
_MODULES = {"ExportOptions": "options", **{f"export_{name}": name for name in _FORMATS}}


def __getattr__(name):
    """Imports an exporter, and TensorFlow with it, when it is first used."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
