"""Program: runs single operations on this backend and writes what they give to a file."""

import sys

import keras
import numpy as np
from conftest import random_boxes
from gradients import gradient, layer_gradients
from keras import ops

from libra_keras import backbones, layers, losses, samplers
from libra_keras.functional import (
    anchors,
    boxes,
    matching,
    nms,
    random_keys,
    ranking,
    resize,
    roi_align,
)

STRIDES = (4, 8)


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def box_operations(rng):
    some, others = (random_boxes(rng, 2, num, height=96, width=128) for num in (60, 7))
    deltas = rng.normal(size=(2, 60, 4)).astype("float32")
    present = np.arange(7) < np.array([[7], [4]])
    stds = (0.1, 0.1, 0.2, 0.2)

    def every(some, others, deltas):
        overlaps = boxes.iou(some, others)
        return {
            "area": boxes.area(some),
            "iou": overlaps,
            "iof": boxes.iof(some, others),
            "clip": boxes.clip(some, np.array([[40, 50], [96, 128]])),
            "encode": boxes.encode(some[:, :7], others, stds),
            "decode": boxes.decode(deltas, some, stds),
            "match": matching.match(overlaps, present, 0.5, 0.3, min_positive_iou=0.2)._asdict(),
            "anchors": anchors.pyramid_anchors([(24, 32), (12, 16)], STRIDES),
        }

    yield from compiled(every)(some, others, deltas).items()


def choices(rng):
    """Random keys, and the samples of every sampler; all are compared to the last bit."""
    iou = rng.beta(0.4, 2, (3, 700)).astype("float32")
    keys = random_keys.random_keys(2**40 + 1, 12, ops.arange(3), 700)
    yield "keys", keys
    yield "renewed_keys", random_keys.renew(keys, 4)
    every = {
        "random": samplers.RandomSampler(128, 0.25, max_negatives_per_positive=3),
        "iou_balanced": samplers.IoUBalancedSampler(128, 0.25),
        "instance_balanced": samplers.InstanceBalancedSampler(128, 0.25),
        "combined": samplers.CombinedSampler.preset("mmdet", 128, 0.25),
    }
    owners = (iou * 8).astype("int32")
    for name, sampler in every.items():
        yield f"{name}_sample", compiled(sampler)(iou, owners, iou >= 0.5, iou < 0.5, keys)
    tied = rng.integers(0, 9, (3, 200)).astype("float32")
    yield "top_k", ranking.top_k(ops.convert_to_tensor(tied), 50)[1]
    clusters = random_boxes(rng, 2, 300, height=60, width=60, smallest=20)
    scores = np.round(rng.uniform(size=(2, 300)), 2).astype("float32")  # with ties
    groups = rng.integers(0, 3, (2, 300))
    yield (
        "nms",
        compiled(lambda b, s, g: nms.nms(b, s, 0.5, 60, groups=g))(clusters, scores, groups),
    )


def features(rng):
    levels = [rng.normal(size=(2, 24 // s, 32 // s, 3)).astype("float32") for s in (1, 2)]
    some = random_boxes(rng, 2, 30, height=96, width=128)
    weights = rng.normal(size=(2, 30, 3, 3, 3)).astype("float32")
    for ratio in (0, 2):
        options = {"output_size": 3, "sampling_ratio": ratio, "max_sampling_ratio": 4}

        def pool(first, second, options=options):
            return roi_align.multilevel_roi_align([first, second], some, STRIDES, **options)

        slope = gradient(lambda x: ops.multiply(pool(x, levels[1]), weights), levels[0])  # noqa: B023
        yield f"roi_align_{ratio}", (compiled(pool)(*levels), slope)
    x, weights = levels[0], rng.normal(size=(2, 17, 40, 3)).astype("float32")
    for function in (resize.resize_nearest, resize.adaptive_max_pool):

        def resized(x, function=function):
            return ops.multiply(function(x, (17, 40)), weights)

        yield function.__name__, (compiled(resized)(x), gradient(resized, x))


def loss_values(rng):
    x = rng.normal(size=(300,)).astype("float32")
    for name, function in {
        "balanced_l1": lambda x: losses.balanced_l1(x, 0.0 * x),
        "smooth_l1": lambda x: losses.smooth_l1(x, 0.0 * x, beta=0.3),
        "focal": lambda x: losses.focal(ops.cast(ops.arange(300) % 7 == 0, "float32"), 5.0 * x),
    }.items():
        x = ops.convert_to_tensor(x)
        yield name, (compiled(function)(x), gradient(function, x))


def layer_values(rng):
    channels = {"C2": 4, "C3": 6, "C4": 8, "C5": 8}
    maps = {
        name: rng.normal(size=(2, 24 // 2**i, 32 // 2**i, channels[name])).astype("float32")
        for i, name in enumerate(channels)
    }
    pyramid = [rng.normal(size=(2, n, n + 2, 8)).astype("float32") for n in (14, 7, 4, 2)]
    images = rng.normal(size=(2, 64, 96, 3)).astype("float32")
    for name, layer, inputs in (
        ("feature_pyramid", layers.FeaturePyramid(8, 5), maps),
        ("balanced_pyramid_conv", layers.BalancedFeaturePyramid(1, "conv"), pyramid),
        ("balanced_pyramid_non_local", layers.BalancedFeaturePyramid(2, "non_local"), pyramid),
        ("non_local_block", layers.NonLocalBlock(sub_sample=True), pyramid[0]),
        ("non_local_in_blocks", layers.NonLocalBlock(block=30), pyramid[0]),  # 8 of 28 positions
        ("resnet", backbones.ResNet(18, width=8, frozen_stages=-1), images),
    ):
        layer.build(keras.tree.map_structure(np.shape, inputs))
        for variable in layer.weights:
            if len(variable.shape) > 1:
                size = np.prod(variable.shape[:-1]) ** -0.5
                variable.assign(rng.normal(size=variable.shape).astype("float32") * size)
        shapes = _output_shapes(layer, inputs)
        ones = keras.tree.map_shape_structure(lambda s: np.ones(s, "float32"), shapes)
        yield name, layer_gradients(layer, inputs, ones)
    yield (
        "normalization",
        layers.ImageNormalization()(np.round(images * 50 + 100), np.array([[64, 96], [50, 70]])),
    )


def _output_shapes(layer, inputs):
    shapes = keras.tree.map_structure(np.shape, inputs)
    return layer.compute_output_shape(shapes)


def main(path):
    results = {}
    for part in (box_operations, choices, features, loss_values, layer_values):
        for name, values in part(np.random.default_rng(0)):
            for place, value in keras.tree.flatten_with_path(values):
                key = "/".join(map(str, (part.__name__, name, *place)))
                results[key] = ops.convert_to_numpy(value)
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
