"""What `model.export` writes: what `predict` does, at the very place that Keras' own writes to."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import keras

from libra_keras.export import folder, litert, onnx, openvino, saved_model
from libra_keras.export.network import SPECS, network
from libra_keras.export.options import ExportOptions, check_precision, with_options
from libra_keras.files import atomic
from libra_keras.files.locks import alone_beside
from libra_keras.files.replacing import check_replaceable, check_replaceable_files

# What each format takes beside `overwrite` and `options`.
ARGUMENTS = {
    "tf_saved_model": (),
    "onnx": (),
    "openvino": (),
    "litert": ("batch_size", "num_proposals"),
}
SUFFIXES = {"openvino": ".xml", "litert": ".tflite"}  # which their readers ask for
KINDS = {  # of files: what they hold in the first bytes
    "onnx": b"tf2onnx",
    "openvino": b"<net ",
    "litert": b"TFL3",
}


def export(
    model,
    filepath,
    format="tf_saved_model",
    verbose=None,
    input_signature=None,
    overwrite=True,
    options=None,
    **more,
):
    """Writes a detector as `keras.Model.export` would; `Detector.export` says how it is used."""
    _check_format(format, more)
    path, specs = Path(filepath), input_specs(model, input_signature)
    _check_place(path, format, overwrite)
    options = options or ExportOptions()
    _check_precision(options.precision, format)
    model = with_options(model, options)
    with alone_beside(path):
        _WRITERS[format](model, path, specs, **more)
    if verbose is None or verbose:
        print(f"Saved artifact at '{path}': {format}, inputs {', '.join(_names(model, specs))}")


def _check_precision(precision, format):
    if precision == "int8":
        raise ValueError(
            "An export in int8 requires images to calibrate with, which `export_onnx` and "
            "`export_openvino` of `libra_keras.export` take. Received: precision='int8'"
        )
    check_precision(precision, format.removeprefix("tf_"))


def _check_format(format, more):
    if format == "torch":
        raise ValueError(
            "A detector cannot be exported as a PyTorch program; to run it without Keras, use "
            "format='onnx', 'openvino', 'litert' or 'tf_saved_model'"
        )
    if format not in ARGUMENTS:
        raise ValueError(f"`format` must be one of {', '.join(ARGUMENTS)}. Received: {format!r}")
    known = ("input_signature", "verbose", "overwrite", "options", *ARGUMENTS[format])
    unknown = [name for name in more if name not in known]
    if unknown:
        raise ValueError(
            f"The export of a detector as {format} takes {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )


def _check_place(path, format, overwrite):
    if format == "tf_saved_model":
        saved_model.check_backend("A SavedModel")
        saved_model.check_name(path)
        check_replaceable(path, saved_model.VERSION, overwrite)
        return
    modules = {"onnx": onnx.MODULES, "openvino": openvino.MODULES, "litert": ()}
    folder.check_packages({"onnx": ".onnx", **SUFFIXES}[format], modules[format])
    suffix = SUFFIXES.get(format, path.suffix)
    if path.suffix != suffix:
        raise ValueError(f"The name of a file for {format} must end in {suffix}. Received: {path}")

    def is_own(file):
        with open(path if path.exists() else file, "rb") as opened:  # a .bin is what its .xml is
            return KINDS[format] in opened.read(200)

    files = [path, path.with_suffix(".bin")] if format == "openvino" else [path]
    check_replaceable_files(files, f"file of {format}", is_own, overwrite)


def input_specs(model, signature):
    """Returns what `input_signature` says: a dict from names of inputs to shapes and types."""
    if signature is None:
        return {}
    if isinstance(signature, (list, tuple)) and len(signature) == 1:
        signature = signature[0]
    given = signature if isinstance(signature, dict) else {"images": signature}
    needed = [name for name in model.INPUTS if name != "image_sizes" or len(model.INPUTS) > 2]
    wrong = set(given) - set(model.INPUTS) or set(needed) - set(given)
    if wrong or not all(_is_spec(name, spec) for name, spec in given.items()):
        raise ValueError(
            "`input_signature` must be a spec of the images (B, H, W, 3), or a dict of specs with "
            f"a shape and a dtype for {', '.join(model.INPUTS)}. Received: {signature!r}"
        )
    found = {
        name: (tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))
        for name, spec in given.items()
    }
    return found if "image_sizes" in found else {**found, "image_sizes": None}


def _is_spec(name, spec):
    shape, dtype = getattr(spec, "shape", None), getattr(spec, "dtype", None)
    if shape is None or dtype is None or len(shape) != len(SPECS[name][0]):
        return False
    return shape[-1] == SPECS[name][0][-1]


def _names(model, specs):
    return [name for name in model.INPUTS if specs.get(name, not specs)]


def _write_onnx(model, path, specs):
    with atomic.replacing(path) as unfinished:
        onnx.write(unfinished, model, specs)


def _write_openvino(model, path, specs):
    with contextlib.ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory()), "detector.xml")
        openvino.write(made, model, specs)
        for suffix in (".bin", ".xml"):  # the graph replaces the old one last
            unfinished = stack.enter_context(atomic.replacing(path.with_suffix(suffix)))
            shutil.move(made.with_suffix(suffix), unfinished)


def _write_litert(model, path, specs, batch_size=1, num_proposals=1000):
    if not specs:
        graphs = litert.graphs_of_policy(model, batch_size, num_proposals)
    elif None in [side for spec in specs.values() if spec for side in spec[0][1:]]:
        raise ValueError(
            "LiteRT requires fixed heights and widths; those of `input_policy` are the default. "
            f"Received: input_signature={specs}"
        )
    else:
        graphs = {"serving_default": litert.graph(model, specs)}
    with atomic.replacing(path) as unfinished:
        unfinished.write_bytes(litert.converted(graphs))


def _write_saved_model(model, path, specs):
    import tensorflow as tf

    images = specs.get("images", (SPECS["images"][0], "float32"))
    run = network(model, {**specs, "image_sizes": SPECS["image_sizes"], "images": images})

    def predict(images, image_sizes=None, **proposals):
        if image_sizes is None:
            shape = tf.shape(images)
            image_sizes = tf.tile(shape[None, 1:3], (shape[0], 1))
        return run(tf.cast(images, run.input_signature[0].dtype), image_sizes, **proposals)

    forms = [
        {name: tf.TensorSpec(*spec, name=name) for name, spec in form.items()}
        for form in _forms(model, specs)
    ]
    bundle = tf.Module()
    # All that the graph reads, and nothing else.
    bundle.weights = list(run.get_concrete_function().variables)
    bundle.serve = tf.function(
        lambda x: predict(**x) if isinstance(x, dict) else predict(x), autograph=False
    )
    for form in forms:
        bundle.serve.get_concrete_function(form)
        if len(form) == 1:
            bundle.serve.get_concrete_function(*form.values())
    signature = tf.function(predict, autograph=False).get_concrete_function(**forms[0])
    with atomic.replacing(path) as unfinished:
        both = {"serve": signature, "serving_default": signature}
        tf.saved_model.save(bundle, str(unfinished), signatures=both)
        note = unfinished / saved_model.NOTE
        note.parent.mkdir()
        atomic.write_json(note, folder.note(model))


def _forms(model, specs):
    """What `serve` takes, the signatures' form first: dicts from names to shapes and types."""
    if specs:
        return [{name: specs[name] for name in _names(model, specs)}]
    every = {name: SPECS[name] for name in model.INPUTS}
    alone = {name: spec for name, spec in every.items() if name != "image_sizes"}
    images = every["images"][0]
    return [
        {**form, "images": (images, dtype)}
        for dtype in ("uint8", "float32")
        for form in (every, alone)
    ]


_WRITERS = {
    "tf_saved_model": _write_saved_model,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "litert": _write_litert,
}
