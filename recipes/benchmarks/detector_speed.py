"""How long a detector takes: one image, one training step, and every part of that step.

Times are medians in seconds, on drawn noise, beside a calibration of the same run: the forward and
the forward + backward pass of keras.applications' ResNet-50 at 512x512. Compare ratios to the
calibration, not seconds, between machines.

    python recipes/benchmarks/detector_speed.py --size 512x512 800x1344
    python recipes/benchmarks/detector_speed.py --model faster_rcnn_resnet50 --runs 3
"""

import argparse
import os
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import libra_keras as lk

FORWARD = "calibration: ResNet-50 forward"
FORWARD_BACKWARD = "calibration: ResNet-50 forward + backward"


def seconds(function, runs):
    """Median time of `function()` after one call that traces and compiles."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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


def inference(model, height, width, runs):
    x, _ = noise_batch(1, height, width)
    return {"inference, batch 1": seconds(lambda: model.predict_on_batch(x), runs)}


def training(model, height, width, runs):
    batch = noise_batch(2, height, width)
    model.compile(lk.training.SGD(1e-4, momentum=0.9, weight_decay=1e-4))
    return {"training step, batch 2": seconds(lambda: model.train_on_batch(*batch), runs)}


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


def report(name, size, times):
    """Prints every figure beside the two calibrations of the same run."""
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
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
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    calibrated = calibration(args.runs)
    for size in args.size:
        height, width = map(int, size.split("x"))
        model = getattr(lk.models, args.model)(num_classes=80)
        times = dict(calibrated)
        for measure in (inference, training, parts):
            times.update(measure(model, height, width, args.runs))
        report(args.model, size, times)


if __name__ == "__main__":
    main()
