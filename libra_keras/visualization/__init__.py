"""Pictures of detections and of training runs."""

from libra_keras.registration import register_classes
from libra_keras.visualization.augmented import augmented
from libra_keras.visualization.curves import plot_curves
from libra_keras.visualization.detections import (
    class_color,
    draw_detections,
    gallery,
    save_image,
)
from libra_keras.visualization.panels import panel, spread

__all__ = [
    "augmented",
    "class_color",
    "draw_detections",
    "gallery",
    "panel",
    "plot_curves",
    "save_image",
    "spread",
]

register_classes()
