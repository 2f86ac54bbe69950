"""The folder of an export for a runtime other than TensorFlow: a graph, and a note beside it."""

import contextlib
import importlib.util

import libra_keras
from libra_keras.export.network import SPECS
from libra_keras.export.options import thresholds
from libra_keras.export.saved_model import check_backend
from libra_keras.files import atomic
from libra_keras.files.locks import alone_beside
from libra_keras.files.replacing import Kind, check_replaceable
from libra_keras.ranges import plain, whole

NAME = "detector"  # of all files
NOTE = f"{NAME}.json"


def check_folder(path, overwrite, graph, modules):
    """Raises what an export would, before anything is computed."""
    check_packages(graph, modules)
    check_replaceable(path, _kind(graph), overwrite)


def check_packages(graph, modules):
    """Raises unless files can be written: by this backend, with the packages that are installed."""
    check_backend(f"A {graph} file")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Writing {graph} files requires {missing[0]}: pip install "
            f"'libra-keras[{_EXTRAS[graph]}]'"
        )


_BESIDE = {".xml": (f"{NAME}.bin",)}
_EXTRAS = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}


def _kind(graph):
    marker = f"{NAME}{graph}"
    return Kind(f"export of {graph} files", marker, (marker, *_BESIDE.get(graph, ()), NOTE))


def checked_shape(model, shape):
    """Returns height and width of all images as ints; `None` if they are free."""
    if shape is None:
        return None
    multiple = model.input_policy.pad_multiple
    sides = list(map(plain, shape)) if isinstance(shape, (tuple, list)) else []
    if len(sides) != 2 or any(side not in whole(1) or side % multiple for side in sides):
        raise ValueError(
            f"`shape` must be a height and a width in multiples of {multiple} pixels, as for all "
            f"padded images. Received: shape={shape}"
        )
    return tuple(map(int, sides))


def fixed_specs(shape):
    """Returns the `specs` of a `network` for images of one height and width, or any if `None`."""
    if shape is None:
        return None
    (batch, _, _, channels), dtype = SPECS["images"]
    return {"images": ((batch, *shape, channels), dtype)}


@contextlib.contextmanager
def writing(path, model, **more):
    """Gives the path of files without their suffix, whose folder takes the place of `path`.

    `more` goes into the note once the files are written: what it holds may be filled by then."""
    with alone_beside(path), atomic.replacing(path) as unfinished:
        unfinished.mkdir()
        yield unfinished / NAME
        atomic.write_json(unfinished / NOTE, note(model, **more))


def note(model, **more):
    """Returns what a program that runs an exported network must know: a dict for JSON."""
    return {
        "class_names": model.class_names,
        "input_policy": model.input_policy.get_config(),
        "thresholds": thresholds(model),
        "inputs": list(model.INPUTS),
        "outputs": list(model.OUTPUTS),
        "boxes": "x1, y1, x2, y2 in pixels of the padded image",
        **more,
        "libra_keras": libra_keras.__version__,
    }
