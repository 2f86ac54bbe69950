"""Annotations, detections and models that several tests of the evaluation share."""

import numpy as np
from conftest import random_boxes

from libra_keras.data import DetectionData


def make_data(truth, class_names=("a", "b"), category_ids=(3, 90), crowds=(), first_id=1):
    """`truth`: {image id: [(label, x1, y1, x2, y2), ...]}; `crowds`: positions of crowd boxes."""
    annotations = []
    for image_id, rows in truth.items():
        for label, x1, y1, x2, y2 in rows:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": image_id,
                    "category_id": category_ids[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(len(annotations) in crowds),
                }
            )
    coco = {
        "images": [{"id": i, "height": 200, "width": 200} for i in truth],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name} for i, name in zip(category_ids, class_names, strict=True)
        ],
    }
    return DetectionData("test", class_names, category_ids, [], coco)


def found(image_id, *rows):
    """`rows`: (label, score, x1, y1, x2, y2)."""
    rows = np.array(rows, "float64").reshape(-1, 6)
    return {
        "image_id": image_id, "labels": rows[:, 0].astype(int), "scores": rows[:, 1],
        "boxes": rows[:, 2:],
    }  # fmt: skip


def random_case(rng):
    truth, detections = {}, []
    for image_id in range(10, 30):
        boxes = random_boxes(rng, rng.integers(0, 8), height=200.0, width=200.0)
        labels = rng.integers(0, 2, len(boxes))
        truth[image_id] = [(k, *map(float, box)) for k, box in zip(labels, boxes, strict=True)]
        moved = boxes + rng.normal(0, 3, boxes.shape)
        extra = random_boxes(rng, 5, height=200.0, width=200.0)
        rows = [(k, rng.uniform(), *b) for k, b in zip(labels, moved, strict=True)]
        rows += [(rng.integers(0, 2), rng.uniform(), *b) for b in extra]
        detections.append(found(image_id, *rows))
    return make_data(truth, crowds=(2, 7)), detections


def perturbed(data, seed=0):
    """Detections made of the annotations: shifted, relabelled, dropped, doubled, and new ones."""
    rng = np.random.default_rng(seed)
    detections = []
    for image in data.annotations["images"]:
        rows = []
        for row in data.annotations["annotations"]:
            if row["image_id"] != image["id"]:
                continue
            x, y, w, h = row["bbox"]
            label = data.category_ids.index(row["category_id"])
            # None, one or several detections; scores are rounded, so that some tie.
            for _ in range(rng.choice([0, 1, 2, 3], p=[0.15, 0.55, 0.2, 0.1])):
                moved = np.array([x, y, x + w, y + h]) + rng.normal(0, 0.15, 4) * [w, h, w, h]
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                other = label if rng.uniform() < 0.8 else rng.integers(0, data.num_classes)
                rows.append((other, round(rng.uniform(), 2), *moved))
        size = {"height": float(image["height"]), "width": float(image["width"])}
        extra = random_boxes(rng, 3, **size)
        rows += [(rng.integers(0, data.num_classes), round(rng.uniform(), 2), *b) for b in extra]
        detections.append(found(image["id"], *rows))
    return detections


class Oracle:
    """Answers with the annotated boxes, in pixels of the padded image."""

    def __init__(self, data, policy, replicas=1):
        self.data, self.input_policy, self.replicas = data, policy, replicas
        self.examples = {example.image_id: example for example in data.examples}
        self.rows = data.max_boxes + 3

    def predict_on_batch(self, x):
        ids = x["image_ids"].tolist() * self.replicas
        shape = len(ids), self.rows
        boxes, labels = np.zeros((*shape, 4), "float32"), np.full(shape, -1)
        for i, image_id in enumerate(ids):
            example = self.examples[image_id]
            n, j = len(example.boxes), i % len(x["image_ids"])
            scale = x["image_sizes"][j] / x["original_sizes"][j]
            boxes[i, :n] = example.boxes * scale[[1, 0, 1, 0]]
            labels[i, :n] = example.labels
        return {"boxes": boxes, "scores": np.ones(shape, "float32"), "labels": labels}
