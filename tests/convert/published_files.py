"""Files under the names that publishers gave them, with random weights: real tensors' names, and
digits that fit, so that the table of published detectors has to be changed for them."""

import dataclasses
import hashlib
import re

import numpy as np
from convert import key_lists
from convert.seeded_weights import seeded_weights

from libra_keras.convert import published

CLASSES = {81, 320}  # numbers that no narrower network changes


def narrow(shape):
    """The shape in a network of a sixteenth of the channels."""
    return tuple(n if n < 64 or n in CLASSES else n // 16 for n in shape)


def random_tensors(keys):
    """Values for names and shapes; counters are 0."""
    return {
        name: seeded_weights(name, shape) if shape else np.zeros((), int)
        for name, shape in keys.items()
    }


def narrow_detector():
    """The tensors of a narrow Libra Faster R-CNN R50."""
    keys = key_lists.MMDETECTION["libra-faster-rcnn_r50"]()
    return random_tensors({name: narrow(shape) for name, shape in keys.items()})


def publish(monkeypatch, name, content, address=None, **changes):
    """Makes bytes the published file of a detector, and returns how it is called."""
    entry = published.PUBLISHED[name]
    digits = hashlib.sha256(content).hexdigest()[:8]
    file = re.sub(r"-\w{8}\.pth$", f"-{digits}.pth", entry.file.name)
    address = f"{address or 'http://nowhere.invalid'}/{file}"
    changed = dataclasses.replace(entry, address=address, **changes)
    monkeypatch.setitem(published.PUBLISHED, name, changed)
    return file
