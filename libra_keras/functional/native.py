"""The one place for TensorFlow-specific twins of portable code.

Everything in `functional` is written in `keras.ops`. Where TensorFlow does the same arithmetic much
faster in another way, that way lives here, and a test holds both equal. `portable()` switches the
twins off. TensorFlow is imported only when it is the backend.
"""

import contextlib
import functools

import keras
from keras import ops

_portable_depth = 0


@contextlib.contextmanager
def portable():
    """Within this context only portable operations are used: no XLA islands, no sparse twins.

    For export (a server may lack XLA) and for tests that compare both ways. What matters is the
    moment of tracing: a function traced outside the context keeps its twins. The switch is one for
    the whole process, because replicas of a TensorFlow strategy run in threads of their own.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.enabled()
    False
    """
    global _portable_depth
    _portable_depth += 1
    try:
        yield
    finally:
        _portable_depth -= 1


def enabled():
    """Whether twins may be used here: the backend is TensorFlow, and not inside `portable()`.

    Returns:
        bool.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.enabled()
    False
    """
    return keras.backend.backend() == "tensorflow" and _portable_depth == 0


def is_portable_tensorflow():
    """Whether a graph of TensorFlow is made here that other programs will run: in `portable()`.

    Returns:
        bool.

    Example:

    >>> from libra_keras.functional import native
    >>> native.is_portable_tensorflow()
    False
    """
    return keras.backend.backend() == "tensorflow" and _portable_depth > 0


def compiled(function, **static):
    """Makes `function` one XLA kernel (an "island") inside whatever surrounds it, on TensorFlow.

    TensorFlow runs each operation on its own, so arithmetic on large matrices of overlaps spends
    its time writing intermediate results. XLA fuses them. Gradients pass through an island. It
    compiles once per combination of static arguments and shapes; under shapes that are unknown
    while tracing, this happens when they become known.

    Args:
        function: module-level function of tensors (or `None`), or a `functools.partial` of one.
            It must not create variables or communicate between replicas.
        **static: hashable arguments of `function` that are not tensors.

    Returns:
        A function of the tensors. Other backends, and `portable()`, call `function` itself.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> float(native.compiled(ops.sum, axis=0)([1.0, 2.0]))
    3.0
    """
    if isinstance(function, functools.partial):
        if function.args:
            raise ValueError(
                "`compiled` takes static arguments by keyword only. "
                f"Received a partial with positional arguments: {function.args}"
            )
        function, static = function.func, {**function.keywords, **static}

    def call(*tensors):
        if not enabled():
            return function(*tensors, **static)
        # Python numbers would be baked into the graph, one graph per value.
        tensors = [x if x is None else ops.convert_to_tensor(x) for x in tensors]
        return _island(function, tuple(sorted(static.items())))(*tensors)

    return call


@functools.lru_cache(maxsize=256)
def _island(function, static):
    import tensorflow as tf

    def traced(*tensors):
        return function(*tensors, **dict(static))

    return tf.function(traced, jit_compile=True, autograph=False)


def has_sparse_pooling():
    """Whether `sparse_pooling` may stand in for the portable code: twins on, and no GPU.

    On a GPU gathering is not the bottleneck, and the sparse kernels have not been measured there.

    Returns:
        bool.

    Example:

    >>> from libra_keras.functional import native
    >>> with native.portable():
    ...     native.has_sparse_pooling()
    False
    """
    return enabled() and not _has_gpu()


@functools.cache
def _has_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
