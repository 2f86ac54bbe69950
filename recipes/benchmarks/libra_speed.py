"""The calls of our detectors that `detector_speed.py` and `growth.py` time; these two start it."""

import sys

import keras
import numpy as np
import tensorflow as tf
from workers import Calls, serve

import libra_keras as lk

CLASSES = 80


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
    return x, {"boxes": boxes, "labels": rng.integers(0, CLASSES, (num, num_objects), "int32")}


def detector(name, precision):
    """A detector with random weights."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    return getattr(lk.models, name)(num_classes=CLASSES)


def make(job, model, precision, threads):
    """The `Calls` of a job."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    versions = f"libra-keras {lk.__version__}, keras {keras.__version__}, TF {tf.__version__}"
    if job.task == "matmul":
        return Calls(*matmul(job.height, precision), versions)
    built = detector(model, precision)
    if job.task == "training":
        built.compile(lk.training.SGD(1e-4, momentum=0.9, weight_decay=1e-4))

    def prepare(number):
        x, y = noise_batch(job.batch, *job.size_of(number), job.objects)
        if job.task == "training":
            return lambda: built.train_on_batch(x, y)
        return lambda: built.predict_on_batch(x)

    def flops():
        return forward_flops(built, job) if job.task == "inference" else None

    return Calls(prepare, flops, versions)


def matmul(side, precision):
    """The product of two squares of noise, and its operations."""
    dtype = keras.dtype_policies.get(precision).compute_dtype
    a, b = (tf.cast(tf.random.normal((side, side)), dtype) for _ in range(2))
    return (lambda number: lambda: tf.linalg.matmul(a, b)), lambda: 2 * side**3


def forward_flops(model, job):
    """Operations of `graph_flops` in the forward pass of a detector."""
    size = job.batch, job.height, job.width

    @tf.function
    def forward(images, image_sizes):
        return model({"images": images, "image_sizes": image_sizes}, training=False)

    shapes = tf.TensorSpec((*size, 3), tf.uint8), tf.TensorSpec((job.batch, 2), tf.int32)
    return graph_flops(forward.get_concrete_function(*shapes).graph)


def graph_flops(graph):
    """Operations of all convolutions and products of matrices, two for each multiplication."""
    total = 0
    for op in graph.get_operations():
        if op.type == "Conv2D":
            each = op.inputs[1].shape[:3].num_elements()  # without the output's channels
        elif op.type in ("MatMul", "BatchMatMulV2"):
            swapped = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            each = op.inputs[0].shape[-2 if swapped else -1]
        else:
            continue
        total += 2 * each * op.outputs[0].shape.num_elements()
    return total


if __name__ == "__main__":
    serve(sys.argv[2], make)
