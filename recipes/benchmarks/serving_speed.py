"""How fast a detector runs in every runtime that it can be exported to, and how large it is.

Keras, the SavedModel, onnxruntime, OpenVINO and LiteRT get the same noise, prepared as in training;
the SavedModel's signature `images` also resizes it. Weights are random, unless `--run` names a run.
Each runtime is a process of its own with the same number of threads. Latency is the median of
calls with one image. One runtime after the other runs beside the first, and they alternate call by
call, so that other load on the machine affects both, and no more than two need memory. Throughput
is that of the best call with a batch of 8: one process exists at a time, and they alternate turn by
turn. LiteRT takes one image after the other, and requires the size that the detector pads images
to.

    python recipes/benchmarks/serving_speed.py --size 800x1344
    python recipes/benchmarks/serving_speed.py --model libra_faster_rcnn_small --size 320x320
    python recipes/benchmarks/serving_speed.py --beside torchvision-env/bin/python

`--beside` adds torchvision's R50-FPN Faster R-CNN in torch, from an interpreter that has it; see
`torchvision_speed.py`. Ratios are to the first line, Keras as `predict_on_batch` runs it, unless
`--only` leaves it out. Exporting takes minutes; `--files` keeps the exports for the next time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 8


def noise(size, num):
    """Prepared images of noise that fill their size."""
    height, width = map(int, size.split("x"))
    images = np.random.default_rng(0).integers(0, 255, (num, height, width, 3), "uint8")
    return {"images": images, "image_sizes": np.array([[height, width]] * num, "int32")}


def build(options):
    """The detector: of a run folder, or with random weights."""
    import keras

    import libra_keras as lk
    from libra_keras import runs

    if options.run:
        return runs.open(options.run).model
    sides = sorted(map(int, options.size.split("x")))
    keras.utils.set_random_seed(0)
    policy = lk.data.InputPolicy(*sides)
    return getattr(lk.models, options.model)(num_classes=80, input_policy=policy)


def keras_compiled(options):
    """`predict_on_batch`, a traced function with compiled parts."""
    return build(options).predict_on_batch


def keras_eager(options):
    """The model called as a Python function, operation by operation."""
    model = build(options)
    return lambda x: model(x, training=False)["boxes"].numpy()


def saved_model(options, signature="prepared"):
    """A signature of the SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(Path(options.files, "saved_model", "1")))
    run = loaded.signatures[signature]

    def call(x):
        takes = {"images": x["images"]} if signature == "images" else x
        return {
            k: v.numpy() for k, v in run(**{k: tf.constant(v) for k, v in takes.items()}).items()
        }

    call.loaded = loaded  # what is not kept is unloaded
    return call


def saved_model_images(options):
    """The SavedModel on images that it resizes itself."""
    return saved_model(options, "images")


def onnx(options):
    """onnxruntime on its CPU provider."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    path = str(Path(options.files, "onnx", "detector.onnx"))
    session = onnxruntime.InferenceSession(path, session_options, ["CPUExecutionProvider"])
    return lambda x: session.run(None, x)


def openvino(options):
    """OpenVINO on its CPU device, in the mode that it advises for latency."""
    import openvino

    path = Path(options.files, "openvino", "detector.xml")
    settings = {"INFERENCE_NUM_THREADS": options.threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda x: request.infer(x)


def litert(options):
    """LiteRT's interpreter with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    height, width = map(int, options.size.split("x"))
    path = str(Path(options.files, "litert", "detector.tflite"))
    interpreter = Interpreter(path, num_threads=options.threads)
    run = interpreter.get_signature_runner("portrait" if height > width else "landscape")

    def call(x):
        for row in range(len(x["images"])):
            run(**{name: value[row : row + 1] for name, value in x.items()})

    call.interpreter = interpreter  # which holds the tensors
    return call


# Name -> what makes the function of a batch, and the folder of its export.
RUNTIMES = {
    "Keras, predict_on_batch": (keras_compiled, None),
    "Keras, eager": (keras_eager, None),
    "SavedModel, prepared": (saved_model, "saved_model"),
    "SavedModel, images": (saved_model_images, "saved_model"),
    "onnxruntime": (onnx, "onnx"),
    "OpenVINO": (openvino, "openvino"),
    "LiteRT": (litert, "litert"),
}
TORCHVISION = "torchvision's R50, torch"
TORCHVISION_CALLS = {1: 0, BATCH: 2}  # numbers of `torchvision_speed.py`


def serve(options):
    """Makes one call for each line of the input, the size of the batch, and prints its seconds."""
    if RUNTIMES[options.serve][0].__name__.startswith(("keras", "saved_model")):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    run = RUNTIMES[options.serve][0](options)
    print("ready", flush=True)
    for line in sys.stdin:
        x = noise(options.size, int(line))
        start = time.perf_counter()
        run(x)
        print(time.perf_counter() - start, flush=True)


def command(options, *more):
    """This script as another process runs it, for the same detector."""
    shared = ["--size", options.size, "--threads", options.threads, "--model", options.model]
    shared += ["--files", options.files, *(["--run", options.run] if options.run else [])]
    return [str(word) for word in (sys.executable, __file__, *shared, *more)]


class Worker:
    """A process that makes one call with a batch of some size when asked."""

    def __init__(self, name, options):
        words = command(options, "--serve", name)
        if name == TORCHVISION:
            script = Path(__file__).with_name("torchvision_speed.py")
            words = [options.beside, str(script), "--serve", "--size", options.size]
            words += ["--threads", str(options.threads)]
        self.name, pipes = name, {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, text=True, **pipes)
        self._line()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The process of {self.name} ended; see above")
        return line.strip()

    def seconds(self, batch):
        """Time of one call."""
        calls = TORCHVISION_CALLS if self.name == TORCHVISION else {}
        print(calls.get(batch, batch), file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def latencies(names, options):
    """Seconds of one image, and how many times as many as the first needs, by name."""
    first, results = Worker(names[0], options), {}
    of_first = [first.seconds(1) for _ in range(2 + options.runs)][2:]  # two warm up
    for name in names[1:]:
        worker = Worker(name, options)
        worker.seconds(1), worker.seconds(1)
        pairs = [(first.seconds(1), worker.seconds(1)) for _ in range(options.runs)]
        worker.close()
        beside, own = (statistics.median(times) for times in zip(*pairs, strict=True))
        results[name] = own, own / beside
        of_first += [pair[0] for pair in pairs]
        print(f"{name}: {own:.3f} s beside {beside:.3f} s", flush=True)
    first.close()
    return {names[0]: (statistics.median(of_first), 1.0), **results}


def throughputs(names, options):
    """Images a second by name: the best of some turns with a process each."""
    best = dict.fromkeys(names, 0.0)
    for _ in range(options.turns):
        for name in names:
            worker = Worker(name, options)
            worker.seconds(BATCH)
            seconds = min(worker.seconds(BATCH) for _ in range(2))
            worker.close()
            best[name] = max(best[name], BATCH / seconds)
            print(f"{name}: {BATCH} in {seconds:.3f} s", flush=True)
    return best


def export(names, options):
    """Writes the exports that are not there yet, one process each; returns the weights' bytes."""
    for kind in dict.fromkeys(RUNTIMES[name][1] for name in names if name in RUNTIMES):
        if kind and not Path(options.files, kind).exists():
            start = time.perf_counter()
            words, quiet = command(options, "--write", kind), subprocess.DEVNULL
            subprocess.run(words, check=True, stdout=quiet)
            print(f"export to {kind}: {time.perf_counter() - start:.0f} s", flush=True)
    done = subprocess.run(command(options, "--write", "nothing"), check=True, capture_output=True)
    return int(done.stdout.split()[-1])


def write(options):
    """Writes one export and prints how many bytes the weights have."""
    import libra_keras as lk

    model, kind = build(options), options.write
    if kind != "nothing":
        getattr(lk.export, f"export_{kind}")(model, Path(options.files, kind))
    print(sum(4 * variable.value.shape.num_elements() for variable in model.weights))


def megabytes(folder):
    """Size of the files in a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6


def report(names, weights, latency, throughput, options):
    """Prints the table; ratios are to the first line."""
    print(f"\n{options.run or options.model} at {options.size}, {options.threads} threads, float32")
    print(f"weights {weights / 1e6:.1f} MB; latency: median of {options.runs} calls")
    print(f"{'':24} {'batch 1':>9} {'ratio':>6} {f'batch {BATCH}':>12} {'ratio':>6}", end="")
    print(f" {'size':>9} {'/ weights':>9}")
    for name in names:
        (seconds, slower), faster = latency[name], throughput[name] / throughput[names[0]]
        print(f"{name:24} {seconds:7.3f} s {slower:6.2f}", end="")
        print(f" {throughput[name]:6.2f} im/s {faster:6.2f}", end="")
        kind = RUNTIMES[name][1] if name in RUNTIMES else None
        size = megabytes(Path(options.files, kind)) if kind else 0
        print(f" {size:6.1f} MB {size * 1e6 / weights:9.3f}" if kind else "", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="faster_rcnn_resnet50")
    parser.add_argument(
        "--run", metavar="FOLDER", help="a run folder, whose model is used instead of --model"
    )
    parser.add_argument(
        "--size", default="800x1344", metavar="HEIGHTxWIDTH", help="multiples of 32"
    )
    parser.add_argument("--runs", type=int, default=7, help="calls of each runtime with one image")
    parser.add_argument(
        "--turns", type=int, default=2, help="processes of each runtime with batches of 8"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--beside", metavar="PYTHON", help="Python interpreter with torchvision")
    parser.add_argument(
        "--files", metavar="FOLDER", help="folder to keep exports in and reuse them from"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve or options.write:
        return serve(options) if options.serve else write(options)
    with tempfile.TemporaryDirectory() as folder:
        options.files = options.files or folder
        names = [*options.only, *([TORCHVISION] if options.beside else [])]
        weights = export(names, options)
        latency, throughput = latencies(names, options), throughputs(names, options)
        report(names, weights, latency, throughput, options)


if __name__ == "__main__":
    main()
