"""The one alias that signatures use."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # of any backend, a NumPy array, or what converts to one
