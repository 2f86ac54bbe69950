"""The reference's small detectors as checkpoints of mmdetection's eras."""

from pathlib import Path

import numpy as np

from libra_keras.convert.checkpoint import Checkpoint


def checkpoint(tensors, name="detector.pth", meta=None, sha256="0" * 64):
    """A `Checkpoint` that was read from no file."""
    return Checkpoint(path=Path(name), tensors=tensors, meta=meta or {}, sha256=sha256)


def as_era_1(tensors, rng):
    """The same detector as mmdetection 1.x wrote it: background first, no `roi_head.`.

    The four rows of the background's box regression, which nothing uses, are random.
    """
    result = {}
    for name, tensor in tensors.items():
        if ".fc_cls." in name:
            tensor = np.concatenate([tensor[-1:], tensor[:-1]])
        if ".fc_reg." in name:
            unused = rng.normal(size=(4, *tensor.shape[1:])).astype("float32")
            tensor = np.concatenate([unused, tensor])
        result[name.replace("roi_head.", "")] = tensor
    return result


def as_plain(tensors):
    """A plain detector: no balanced pyramid, and a neck that is no list."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("neck.1.")}
    return {name.replace("neck.0.", "neck."): tensor for name, tensor in kept.items()}
