"""Makes Keras know every class that a file can name, whichever part of the package is imported.

`keras.saving.load_model` finds classes whose modules have been imported. A detector's file names
its parts, its optimizer and its schedule, and a program that loads it need not know in which
subpackage each of them lies.
"""

import importlib
import sys

PARTS = ("models", "samplers", "training")  # with what these import, all that register classes
_registered = False


def register_classes():
    """Imports all modules that register classes, unless a subpackage is half imported.

    Subpackages that import Keras call it as their last act. The one that was imported first, and
    has imported the others, ends last, and nobody is half imported then.

    Example:

    >>> import keras
    >>> from libra_keras.registration import register_classes
    >>> register_classes()
    >>> keras.saving.get_registered_object("libra_keras>GuardedAdamW").__name__
    'AdamW'
    """
    global _registered
    package = __name__.rpartition(".")[0]
    begun = [sys.modules.get(f"{package}.{name}") for name in sys.modules[package].__all__]
    if _registered or any(part and not hasattr(part, "__all__") for part in begun):
        return
    _registered = True
    for name in PARTS:
        importlib.import_module(f"{package}.{name}")
