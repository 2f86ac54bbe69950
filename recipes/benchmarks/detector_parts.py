"""How long each part of a training step takes, on the outputs of the part before.

Times are medians in seconds, on random noise and two images, beside their share of forward pass,
losses and gradients. Some overlap: a part that stands alone is traced alone.

    python recipes/benchmarks/detector_parts.py --size 512x512 800x1344
    python recipes/benchmarks/detector_parts.py --precision mixed_bfloat16 --runs 3
"""

import argparse
import os
import statistics

import tensorflow as tf
import workers
from libra_speed import detector, noise_batch

import libra_keras as lk

WHOLE = "forward, losses and gradients"


def seconds(function, runs):
    """Median time of `function()` after one call that traces and compiles."""
    function()
    return statistics.median([workers.seconds(function) for _ in range(runs)])


def parts(model, height, width, runs):
    """Seconds of each part of a step of two images, on the outputs of the one before."""
    x, y = noise_batch(2, height, width)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    truth, sizes = lk.models.GroundTruth.of(y), x["image_sizes"]

    def keys(num):
        return tf.random.stateless_uniform((2, num), (1, 2))

    result = {}

    def timed(name, function, *args):
        traced = tf.function(function)
        result[name] = seconds(lambda: traced(*args), runs)
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

    result["forward and losses"] = seconds(tf.function(forward), runs)
    result[WHOLE] = seconds(tf.function(forward_backward), runs)
    return result


def report(title, times):
    """Prints every part with its share of the whole."""
    print(f"\n{title}\n{'':44} {'seconds':>8} {'share':>6}")
    for part, value in times.items():
        print(f"{part:44} {value:8.3f} {value / times[WHOLE]:6.0%}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="libra_faster_rcnn_resnet50", help="two-stage")
    parser.add_argument("--precision", default="float32", choices=workers.PRECISIONS)
    parser.add_argument(
        "--size", nargs="+", default=["512x512"], metavar="HEIGHTxWIDTH", help="in pixels"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    for size in args.size:
        times = parts(detector(args.model, args.precision), *workers.pair_of(size), args.runs)
        report(f"{args.model} at {size}, {args.threads} threads, {args.precision}", times)


if __name__ == "__main__":
    main()
