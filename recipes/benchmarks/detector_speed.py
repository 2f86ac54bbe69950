"""How long a detector takes: one image, one training step, and every part of that step.

Times are medians in seconds, on random noise, beside a calibration from the same run: the forward
and the forward + backward pass of keras.applications' ResNet-50 at 512x512. Compare ratios to the
calibration, not seconds, between machines.

    python recipes/benchmarks/detector_speed.py --size 512x512 800x1344
    python recipes/benchmarks/detector_speed.py --model faster_rcnn_resnet50 --runs 3

`--beside` compares with torchvision's Faster R-CNN instead of timing the parts: it runs
`torchvision_speed.py` with the interpreter of an environment that has torchvision. Calls of the two
alternate, with equal sizes and numbers of threads, so that other load on the machine affects both.
Nothing else should run, and memory must suffice for both.

    python recipes/benchmarks/detector_speed.py --beside torchvision-env/bin/python
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import libra_keras as lk

FORWARD = "calibration: ResNet-50 forward"
FORWARD_BACKWARD = "calibration: ResNet-50 forward + backward"


def seconds(function, runs):
    """Median time of `function()` after one call that traces and compiles."""
    function()
    return statistics.median([one_call(function) for _ in range(runs)])


def one_call(function):
    """Time of one call in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def calibration(runs):
    """Forward and forward + backward of a ResNet-50 classifier's trunk on one 512x512 image."""
    network = keras.applications.ResNet50(include_top=False, weights=None)
    image = tf.random.normal((1, 512, 512, 3))

    @tf.function
    def forward():
        return network(image, training=False)

    @tf.function
    def forward_backward():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(network(image, training=False))
        return tape.gradient(total, [v.value for v in network.trainable_variables])

    return {
        FORWARD: seconds(forward, runs),
        FORWARD_BACKWARD: seconds(forward_backward, runs),
    }


def noise_batch(num, height, width, num_objects=8, seed=0):
    """A batch of noise images with boxes all over them."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.7, (num, num_objects, 2)) * (width, height)
    sides = rng.uniform(0.05, 0.3, (num, num_objects, 2)) * (width, height)
    boxes = np.concatenate([corners, corners + sides], -1).astype("float32")
    x = {
        "images": rng.integers(0, 255, (num, height, width, 3), "uint8"),
        "image_sizes": np.array([[height, width]] * num, "int32"),
    }
    return x, {"boxes": boxes, "labels": rng.integers(0, 80, (num, num_objects), "int32")}


def inference(model, height, width):
    """Returns a function that detects in one image."""
    x, _ = noise_batch(1, height, width)
    return lambda: model.predict_on_batch(x)


def training_step(model, height, width):
    """Returns a function that makes one step of SGD on two images."""
    batch = noise_batch(2, height, width)
    model.compile(lk.training.SGD(1e-4, momentum=0.9, weight_decay=1e-4))
    return lambda: model.train_on_batch(*batch)


# In the order of `torchvision_speed.py`.
WHOLE = {"inference, batch 1": inference, "training step, batch 2": training_step}


def whole(model, height, width, runs):
    return {name: seconds(make(model, height, width), runs) for name, make in WHOLE.items()}


class Torchvision:
    """`torchvision_speed.py` in an environment of its own, which makes one call when asked."""

    def __init__(self, python, size, threads):
        script = Path(__file__).with_name("torchvision_speed.py")
        command = [python, script, "--serve", "--size", size, "--threads", str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.versions = self._line()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                "torchvision_speed.py ended; is torchvision installed in that environment?"
            )
        return line.strip()

    def seconds(self, number):
        """Time of one call of the thing of this number."""
        print(number, file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def beside(model, python, size, runs, threads):
    """Prints the times of both, and ours over theirs: medians, and the range of single pairs."""
    peer = Torchvision(python, size, threads)
    shown = f"{model.name} at {size}, {threads} threads, float32, medians of {runs}"
    print(f"\n{shown}, beside {peer.versions}")
    print(f"{'':24} {'ours':>9} {'theirs':>9} {'ratio':>6}  of single pairs")
    for number, (name, make) in enumerate(WHOLE.items()):
        run = make(model, *map(int, size.split("x")))
        run(), peer.seconds(number)  # traces, compiles, warms up
        pairs = [(one_call(run), peer.seconds(number)) for _ in range(runs)]
        ours, theirs = map(statistics.median, zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs]
        print(f"{name:24} {ours:7.3f} s {theirs:7.3f} s {ours / theirs:6.2f}", end="  ")
        print(f"{min(ratios):.2f}..{max(ratios):.2f}", flush=True)
    peer.close()


def parts(model, height, width, runs):
    """Each part of a step on the outputs of the one before."""
    x, y = noise_batch(2, height, width)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    truth, sizes = lk.models.GroundTruth.of(y), x["image_sizes"]

    def keys(num):
        return tf.random.stateless_uniform((2, num), (1, 2))

    result = {}

    def timed(name, function, *args):
        traced = tf.function(function)
        result[f"  forward: {name}"] = seconds(lambda: traced(*args), runs)
        return traced(*args)

    normalised = timed("normalisation", model.normalization, x["images"], sizes)
    pyramid = timed("backbone", model.backbone, normalised)
    for layer in model.neck:
        pyramid = timed(type(layer).__name__, layer, pyramid)
    pyramid = list(pyramid.values()) if isinstance(pyramid, dict) else pyramid
    outputs = timed("RPN head", model.rpn, pyramid)
    timed(
        "RPN targets and losses",
        lambda outputs: model.rpn.compute_losses(outputs, truth, sizes, keys),
        outputs,
    )
    proposals = timed(
        "proposals",
        lambda outputs: model.rpn.propose(outputs, sizes, training=True),
        outputs,
    )
    timed(
        "RoI targets, RoIAlign, box head, losses",
        lambda pyramid: model.box_head.compute_losses(pyramid, proposals, truth, keys),
        pyramid,
    )

    def forward():
        return model.compute_loss(x, y, model(x, training=True))

    def forward_backward():
        with tf.GradientTape() as tape:
            total = forward()
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    result["  forward and losses"] = seconds(tf.function(forward), runs)
    result["  forward, losses and gradients"] = seconds(tf.function(forward_backward), runs)
    return result


def report(name, size, times, threads):
    """Prints every figure beside the two calibrations of the same run."""
    print(f"\n{name} at {size}, {threads} threads, float32, medians")
    forward, backward = times[FORWARD], times[FORWARD_BACKWARD]
    print(f"{'':44} {'seconds':>8} {'/ forward':>10} {'/ fwd + bwd':>12}")
    for part, value in times.items():
        print(f"{part:44} {value:8.3f} {value / forward:10.2f} {value / backward:12.2f}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="libra_faster_rcnn_resnet50")
    parser.add_argument(
        "--size", nargs="+", default=["512x512"], metavar="HEIGHTxWIDTH", help="in pixels"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--beside", metavar="PYTHON", help="Python interpreter with torchvision, to compare with"
    )
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    keras.utils.set_random_seed(0)
    calibrated = {} if args.beside else calibration(args.runs)
    for size in args.size:
        height, width = map(int, size.split("x"))
        model = getattr(lk.models, args.model)(num_classes=80, name=args.model)
        if args.beside:
            beside(model, args.beside, size, args.runs, args.threads)
            continue
        times = dict(calibrated)
        for measure in (whole, parts):
            times.update(measure(model, height, width, args.runs))
        report(args.model, size, times, args.threads)


if __name__ == "__main__":
    main()
