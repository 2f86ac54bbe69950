"""Libra R-CNN for Keras 3: balanced two-stage object detection."""

import importlib
import sys

__version__ = "0.2.0"
_SUBPACKAGES = (
    "backbones",
    "convert",
    "data",
    "devices",
    "evaluation",
    "export",
    "files",
    "functional",
    "layers",
    "losses",
    "models",
    "runs",
    "samplers",
    "training",
    "visualization",
)
__all__ = list(_SUBPACKAGES)


def __getattr__(name):
    """Imports a subpackage when it is first used, so that `import libra_keras` stays fast."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_SUBPACKAGES])


if "keras" in sys.modules:  # else the first subpackage that imports it does this
    importlib.import_module(f"{__name__}.registration").register_classes()
