"""The rows of `serving_speed.py`: runtimes, the files that they read, and how they are loaded."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

KERAS, TORCHVISION = "Keras, predict_on_batch", "torchvision's R50, torch"
PRECISIONS = ("float32", "bfloat16", "int8")
# Of images: any, that of --size, or the two that the input policy pads images to.
FREE, FIXED, TWO = "free", "fixed", "two fixed"
SCENES = 4  # that calibrate int8 where only speed is of interest
CLASSES = 80  # of random weights
# What OpenVINO computes in; in int8, the layers that are not.
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a runtime, the precision that it computes in, the shapes of images that
    its file takes."""

    runtime: str
    precision: str = "float32"
    shape: str = FREE

    def __str__(self):
        return f"{self.runtime}, {self.precision}, {self.shape}"

    @property
    def file(self):
        """The row whose export this one reads; `None` if it reads none."""
        if self.runtime == TORCHVISION or RUNTIMES[self.runtime].kind is None:
            return None
        # The precision is a setting of OpenVINO, unless the file is quantized.
        is_setting = RUNTIMES[self.runtime].kind == "openvino" and self.precision == "bfloat16"
        return dataclasses.replace(self, precision="float32") if is_setting else self

    @property
    def folder(self):
        """What the folder of its export is called."""
        own = self.file
        words = RUNTIMES[own.runtime].kind, own.precision, own.shape.replace(" ", "-")
        return "-".join(words)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How rows of a runtime are loaded, and what there is of them.

    Attributes:
        load: function of a row and the options; it returns one from a batch, `images` uint8
            `(B, H, W, 3)` and `image_sizes` int32 `(B, 2)`, to a dict of arrays.
        kind: `export_<kind>` writes its files; `None` if it reads none.
        precisions, shapes: of its rows.
        is_measured: whether it has an AP of its own.
    """

    load: Callable
    kind: str | None = None
    precisions: tuple[str, ...] = ("float32",)
    shapes: tuple[str, ...] = (FREE,)
    is_measured: bool = True


def rows_of(options):
    """The rows that the options ask for, in the order of the table."""
    rows = [
        Row(name, precision, shape)
        for name in options.only
        for precision in RUNTIMES[name].precisions
        for shape in RUNTIMES[name].shapes
        if precision in options.precisions
    ]
    return rows + [Row(TORCHVISION)] * bool(options.beside)


def sides(size):
    """Height and width of a text such as `800x1344`."""
    height, width = map(int, size.split("x"))
    return height, width


def build(options):
    """The detector: of a run folder, or with random weights."""
    import keras

    import libra_keras as lk
    from libra_keras import runs

    if options.run:
        return runs.open(options.run).model
    keras.utils.set_random_seed(0)
    names = [f"class {label}" for label in range(CLASSES)]
    policy = lk.data.InputPolicy(*sorted(sides(options.size)))
    make = getattr(lk.models, options.model)
    return make(num_classes=CLASSES, class_names=names, input_policy=policy)


def drawn(model):
    """A few drawn scenes whose objects are all of a detector's first class."""
    from libra_keras import data
    from libra_keras.data.examples import coco_annotations

    scenes, names = data.shapes(SCENES), tuple(model.class_names[:1])
    examples = [
        dataclasses.replace(each, labels=np.zeros_like(each.labels)) for each in scenes.examples
    ]
    annotations = coco_annotations(examples, names)
    changed = {"class_names": names, "category_ids": (1,), "annotations": annotations}
    return dataclasses.replace(scenes, examples=examples, **changed)


def write(row, options, calibration):
    """Writes the file of a row; `calibration` is a function of the options and the detector that
    returns the images for int8."""
    import libra_keras as lk

    model, kind = build(options), RUNTIMES[row.runtime].kind
    more = {"shape": sides(options.size)} if row.shape == FIXED else {}
    if row.precision == "int8":
        more |= {"calibration": calibration(options, model), "verbose": 0}
    export, settings = getattr(lk.export, f"export_{kind}"), lk.export.ExportOptions(row.precision)
    export(model, Path(options.files, row.folder), options=settings, **more)


def note_of_int8(row, options):
    """What an export in int8 says of itself; `None` for others."""
    if row.file is None or row.precision != "int8":
        return None
    note = json.loads(Path(options.files, row.folder, "detector.json").read_text())
    return note["int8"]


def megabytes(folder):
    """Size of the files in a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6


def load(row, options):
    """Loads the file of a row: the function of its runtime's loader."""
    if row.runtime.startswith(("Keras", "SavedModel")):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    return RUNTIMES[row.runtime].load(row, options)


def keras_compiled(row, options):
    """`predict_on_batch`, a traced function with compiled parts."""
    from libra_keras.export import ExportOptions
    from libra_keras.export.options import with_options

    return with_options(build(options), ExportOptions(row.precision)).predict_on_batch


def keras_eager(row, options):
    """The model called as a Python function, operation by operation."""
    model = build(options)
    return lambda x: {"boxes": model(x, training=False)["boxes"].numpy()}


def saved_model(row, options, signature="prepared"):
    """A signature of the SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(Path(options.files, row.folder, "1")))
    run = loaded.signatures[signature]

    def call(x):
        takes = {"images": x["images"]} if signature == "images" else x
        found = run(**{name: tf.constant(value) for name, value in takes.items()})
        return {name: value.numpy() for name, value in found.items()}

    call.loaded = loaded  # what is not kept is unloaded
    return call


def saved_model_images(row, options):
    """The SavedModel on images that it resizes itself."""
    return saved_model(row, options, "images")


def onnx(row, options):
    """onnxruntime on its CPU provider."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    path = str(Path(options.files, row.folder, "detector.onnx"))
    session = onnxruntime.InferenceSession(path, settings, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, x), strict=True))


def openvino(row, options):
    """OpenVINO on its CPU device, in the mode that it advises for latency."""
    import openvino

    path = Path(options.files, row.folder, "detector.xml")
    settings = {"INFERENCE_NUM_THREADS": options.threads}
    settings |= {"INFERENCE_PRECISION_HINT": HINTS[row.precision]}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda x: {key.any_name: np.array(value) for key, value in request.infer(x).items()}


def litert(row, options):
    """LiteRT's interpreter with XNNPACK, one image after the other."""
    from ai_edge_litert.interpreter import Interpreter

    path = str(Path(options.files, row.folder, "detector.tflite"))
    interpreter = Interpreter(path, num_threads=options.threads)

    def call(x):
        height, width = x["images"].shape[1:3]
        run = interpreter.get_signature_runner("portrait" if height > width else "landscape")
        rows = [
            run(**{name: value[i : i + 1] for name, value in x.items()})
            for i in range(len(x["images"]))
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    call.interpreter = interpreter  # which holds the tensors
    return call


RUNTIMES = {
    KERAS: Runtime(keras_compiled, precisions=("float32", "bfloat16")),
    "Keras, eager": Runtime(keras_eager, is_measured=False),
    "SavedModel, prepared": Runtime(saved_model, "saved_model", ("float32", "bfloat16")),
    "SavedModel, images": Runtime(saved_model_images, "saved_model", is_measured=False),
    "onnxruntime": Runtime(onnx, "onnx", ("float32", "int8"), (FREE, FIXED)),
    "OpenVINO": Runtime(openvino, "openvino", PRECISIONS, (FREE, FIXED)),
    "LiteRT": Runtime(litert, "litert", shapes=(TWO,)),
}
