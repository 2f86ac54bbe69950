"""Weights that two programs can make alike without a file between them: NumPy alone, no torch.

A tensor follows from its torchvision name and its shape. The numbers come from `RandomState`, whose
streams NumPy has frozen for good, and are uniform: nothing that a platform could round differently.
Scales are such that a photograph gives activations of the order of 1, and scores and boxes of many
values; classes that COCO does not use score next to nothing, as in a trained network.
"""

import zlib

import numpy as np

NUM_CLASSES = 91  # torchvision's: 0 is the background, 1..90 are COCO's category ids
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids that no category has
NEVER = -30.0

BOX_SCORES = "roi_heads.box_predictor.cls_score"
DENSE_SCORES = "head.classification_head.cls_logits"

# Deviation of a layer's output for an input of deviation 1; behind a ReLU the others keep theirs.
GAINS = {
    "backbone.fpn.layer_blocks.0.0": 0.5,  # lateral connections add up towards the finer levels
    "backbone.fpn.layer_blocks.1.0": 0.6,
    "backbone.fpn.layer_blocks.2.0": 0.8,
    "rpn.head.cls_logits": 1.0,
    "rpn.head.bbox_pred": 0.4,
    BOX_SCORES: 2.0,
    "roi_heads.box_predictor.bbox_pred": 1.0,
    DENSE_SCORES: 2.0,
    "head.regression_head.bbox_reg": 1.0,
}


def seeded_weights(name, shape):
    """Returns the float32 array of one tensor.

    Args:
        name: string, the tensor's name in torchvision 0.13 or later.
        shape: tuple of ints, in torch's layout.
    """
    layer, _, kind = name.rpartition(".")
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = (2 * random.random_sample(shape) - 1) * np.sqrt(3.0)  # of deviation 1
    if len(shape) > 1:
        values = _scaled(layer, values)
    elif kind == "bias":
        values = _bias(layer, 0.1 * values)
    elif kind == "running_mean":
        values = 0.1 * values
    else:  # the factor and the variance of a batch normalisation
        values = 1 + 0.1 * values
        if kind == "weight" and layer.endswith(".bn3"):
            values = 0.3 * values  # the last of a residual block: 16 blocks add up
        # Trained networks have channels so faint that the epsilon matters; keep their outputs.
        values[7::16] *= 0.003 if kind == "weight" else 1e-5
    return values.astype("float32")


def _scaled(layer, weights):
    """Weights of a convolution or of a matrix, scaled by the number of their inputs."""
    if layer != "backbone.body.conv1":
        # Inputs behind a ReLU have positive means, which would drown what differs between places.
        weights = weights - weights.mean(tuple(range(1, weights.ndim)), keepdims=True)
    gain = GAINS.get(layer, np.sqrt(2.0))
    return weights * gain / np.sqrt(np.prod(weights.shape[1:]))


def _bias(layer, biases):
    if layer == BOX_SCORES:
        biases[0] += 7.0  # most proposals are background
        biases[list(UNUSED)] = NEVER
    if layer == DENSE_SCORES:
        by_class = biases.reshape(-1, NUM_CLASSES)  # of each anchor
        by_class -= 5.6
        by_class[:, [0, *UNUSED]] = NEVER  # index 0 is an output of RetinaNet, but no class
    return biases
