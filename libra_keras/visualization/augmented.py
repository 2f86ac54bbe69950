"""Pictures of images as a model learns from them: resized, varied, padded, and with their boxes."""

import numpy as np
from PIL import Image

from libra_keras.data import Augmentation, DetectionData, InputPolicy
from libra_keras.data.batches import TrainingSource
from libra_keras.visualization.detections import draw_detections, gallery


def augmented(
    data: DetectionData,
    policy: InputPolicy,
    augment: Augmentation | str | None = None,
    flip: float = 0.5,
    seed: int = 0,
    count: int = 16,
    side: int = 480,
) -> np.ndarray:
    """Draws the first images that a run learns from, as it might see them, with their boxes.

    Args:
        data: `DetectionData` with at least one image; with fewer than `count`, several epochs are
            drawn.
        policy, augment, flip, seed: see `data.training_batches`.
        count: int, how many images. Defaults to 16.
        side: int, pixels of the longer side of the largest, if it has as many. Defaults to 480.

    Returns:
        uint8 `(H, W, 3)`, four images in a row; padding is black, as it is for the model.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.visualization import augmented
    >>> augmented(data.shapes(4), data.InputPolicy(96, 96), "strong", side=96).shape
    (408, 408, 3)
    """
    source = TrainingSource(data, policy, 1, flip, seed, augment=augment)
    samples = [source.sample(number) for number in range(count)]
    scale = min(1.0, side / max(max(image.shape) for image, *_ in samples))  # one for all
    pictures = []
    for image, *_, boxes, labels in samples:
        height, width = (max(1, round(scale * length)) for length in image.shape[:2])
        small = np.asarray(Image.fromarray(image).resize((width, height)))
        pictures.append(draw_detections(small, scale * boxes, labels, None, data.class_names))
    return gallery(pictures, columns=4)
