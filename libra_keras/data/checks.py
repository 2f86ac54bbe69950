"""What can be wrong with a data set, found before training; readers leave it out."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from libra_keras.data.decoding import opened
from libra_keras.data.examples import DetectionData
from libra_keras.data.findings import (
    MIN_SIDE,
    DamagedImage,
    Finding,
    empty_classes,
    nothing_left,
    nothing_to_learn,
    read_checked,
    report,
)
from libra_keras.files.reading import reason

ORIENTATION_TAG = 0x0112  # EXIF
TURNED = range(5, 9)  # orientations that swap width and height
MANY = 100  # objects of an image: what detectors give out, and COCO's AP counts
NUM_THREADS = 16  # opening files waits for the disk more than it computes
OF_NO_IMAGE = ("category", "empty class")  # findings on a file by which no image is lost


def check_annotations(data: DetectionData) -> list[Finding]:
    """Checks a data set without decoding an image: annotations, files, and their headers.

    Args:
        data: `DetectionData`.

    Returns:
        List of `Finding`: first, if there is nothing to learn from, that; then those made when the
        data were read, and others. Files whose headers the reader has checked are not opened again.

    Example:

    >>> from libra_keras import data
    >>> data.check_annotations(data.shapes(4))
    []
    """
    nothing = nothing_to_learn(data)
    findings = [nothing] if nothing else []
    findings += [*data.findings, *(finding for _, finding in duplicates(data.examples))]
    if data.has_files and not data.headers_checked:
        headers = read_headers(data.examples)
        findings += [finding for _, finding in header_findings(data.examples, headers)]
    findings += [finding for _, _, finding in box_findings(data.examples, data.num_classes)]
    findings += _crowded(data)
    return list(dict.fromkeys(findings))


def _crowded(data):
    """Warns of images with more objects than a detector returns by default."""
    over = sum(example.num_boxes > MANY for example in data.examples)
    if not over:
        return []
    message = (
        f"{over} of {len(data)} images have more than {MANY} (maximum: {data.max_boxes}): "
        f"detectors return {MANY} per image, small ones 50, unless --max-detections sets another "
        "limit"
    )
    return [Finding("many objects", data.name, None, message)]


def check_data(data: DetectionData, verbose: int = 0) -> list[Finding]:
    """Checks a data set completely: `check_annotations`, and every image is decoded.

    Args:
        data: `DetectionData`. Read it with `skip_bad=True`, or the reader raises what it finds.
        verbose: 0 or 1, whether a progress bar is shown.

    Returns:
        List of `Finding`.

    Example:

    >>> from libra_keras import data
    >>> data.check_data(data.shapes(4))
    []
    """
    findings = check_annotations(data)
    bar = keras.utils.Progbar(len(data), verbose=verbose, unit_name="image")
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for finding in pool.map(lambda i: _decode(data, i), range(len(data))):
            findings += [finding] if finding else []
            bar.add(1)
    return findings


def _decode(data, i):
    try:
        with read_checked(data, i):
            return None
    except DamagedImage as error:
        return Finding("damaged image", str(data.examples[i].file), None, str(error))


def read_headers(examples):
    """Reads all headers: (height, width, EXIF orientation or 1) or the exception for each."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(lambda example: _read_header(example.file), examples))


def _read_header(file):
    try:
        with opened(file) as image:
            # Only where the header has it: asking a PNG file for its EXIF decodes the image.
            exif = image.getexif() if "exif" in image.info else {}
            return image.height, image.width, exif.get(ORIENTATION_TAG, 1)
    except Exception as error:  # a broken header makes Pillow raise nearly anything
        return error


def header_findings(examples, headers):
    """Compares headers with annotations: list of (example's position, `Finding`)."""
    found = []
    for i, (example, header) in enumerate(zip(examples, headers, strict=True)):
        file = str(example.file)
        if isinstance(header, Exception):
            kind = "unreadable file" if os.path.exists(file) else "missing file"
            found.append((i, Finding(kind, file, None, reason(header))))
        elif header[:2] != (example.height, example.width):
            message = (
                f"the file is {header[1]}x{header[0]} (width x height), "
                f"its annotation has {example.width}x{example.height}"
            )
            if header[1::-1] == (example.height, example.width) and header[2] in TURNED:
                message += (
                    f". EXIF orientation {header[2]} rotates it: the annotation refers to the "
                    "rotated image. Save the images rotated"
                )
            found.append((i, Finding("image size", file, None, message)))
        elif header[2] not in (0, 1):
            message = (
                f"EXIF orientation {header[2]} is not applied: boxes refer to stored pixels. If "
                "they were drawn on the rotated image, as many label tools show it, save the "
                "images rotated; --show tells"
            )
            found.append((i, Finding("rotation", file, None, message)))
    return found


def duplicates(examples, bad=frozenset()):
    """Finds images whose id or file was seen before: list of (example's position, `Finding`).
    Those at the `bad` positions count for nothing."""
    ids, files, found = {}, {}, []
    for i, example in enumerate(examples):
        if i in bad:
            continue
        own, file = example.image_id, os.path.normpath(example.file)
        if own in ids:
            message = f"id {own} is also the id of {ids[own]}"
            found.append((i, Finding("image id", str(example.file), None, message)))
        elif file in files:  # with a part of its boxes each time, or with others
            message = f"it is the image with the id {own}, and with the id {files[file]}"
            found.append((i, Finding("duplicate image", str(example.file), None, message)))
        else:
            ids[own], files[file] = example.file, own
    return found


def box_findings(examples, num_classes, written=None, leaves_out_empty=False):
    """Finds boxes that cannot be learnt from: list of (example's position, box's, `Finding`)."""
    boxes, labels, owners = stack_boxes(examples)
    heights = np.array([example.height for example in examples], "float32")[owners]
    widths = np.array([example.width for example in examples], "float32")[owners]
    x1, y1, x2, y2 = boxes.T
    starts = np.concatenate([[0], np.cumsum([len(example.boxes) for example in examples])])
    negative = (x2 < x1) | (y2 < y1)
    empty = ~negative & ((x2 == x1) | (y2 == y1))
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= widths) | (y1 >= heights)
    beyond = (x2 < 0) | (y2 < 0) | (x1 > widths) | (y1 > heights)  # an empty one may touch a border
    tests = {  # a box has one finding, the first
        "not a number": ~np.isfinite(boxes).all(-1),
        "degenerate box": negative if leaves_out_empty else negative | empty,
        "box outside": np.where(empty, beyond, outside),
        "class": (labels < 0) | (labels >= num_classes),
        "empty box": empty,
    }
    found = {}
    for kind, is_bad in tests.items():
        for row in np.flatnonzero(is_bad):
            owner, position = int(owners[row]), int(row - starts[owners[row]])
            if kind == "class":
                message = f"label {labels[row]} is not one of 0..{num_classes - 1}"
            else:
                message = _box_message(kind, examples[owner], position, written, owner)
            name = written.name(owner, position) if written else position
            finding = Finding(kind, str(examples[owner].file), name, message)
            found.setdefault(int(row), (owner, position, finding))
    return [found[row] for row in sorted(found)]


def _box_message(kind, example, position, written, owner):
    if written:
        values, is_degenerate = written.values(owner, position), "has a negative side"
    else:
        corners = ", ".join(f"{value:g}" for value in example.boxes[position])
        values, is_degenerate = f"({corners})", "has x2 <= x1 or y2 <= y1"
    return {
        "not a number": f"{values} is not finite",
        "degenerate box": f"{values} {is_degenerate}",
        "empty box": f"{values} has a side of 0 and is left out, like all of at most 1 px",
        "box outside": f"{values} lies outside the {example.width}x{example.height} image",
    }[kind]


def stack_boxes(examples):
    """Joins the boxes of all examples: boxes `(T, 4)`, labels `(T,)`, owner's position `(T,)`."""
    boxes = [np.asarray(example.boxes, "float32").reshape(-1, 4) for example in examples]
    labels = [np.asarray(example.labels) for example in examples]
    owners = np.repeat(np.arange(len(examples)), [len(rows) for rows in boxes])
    empty = np.zeros((0, 4), "float32"), np.zeros((0,), "int32")
    return np.concatenate([empty[0], *boxes]), np.concatenate([empty[1], *labels]), owners


def clean(
    examples,
    class_names,
    written,
    findings=(),
    skip_bad=False,
    check_files=True,
    name="data",
):
    """Drops what is bad of examples as read, or raises; clips boxes: examples, counts, findings."""
    # A box with a side of at most 1 px after clipping is left out silently, with a count, as the
    # reference's pipelines do: there is nothing to see. With a side of exactly 0, as COCO's
    # train2017 has two, it is a warning besides; a negative side is an error. That no box is left
    # to learn from is a finding, not an error: one may still look for objects.
    if check_files:
        headers = read_headers(examples)
        examples = [_sized(*pair) for pair in zip(examples, headers, strict=True)]
        image_findings = header_findings(examples, headers)
    else:
        examples, image_findings = _all_sized(examples)
    bad_images = {i for i, finding in image_findings if not finding.is_warning}
    twice = duplicates(examples, bad_images)
    image_findings += twice
    bad_images |= {i for i, _ in twice}
    box_found = box_findings(examples, len(class_names), written, leaves_out_empty=True)
    box_found = [found for found in box_found if found[0] not in bad_images]
    every = [*findings, *(f for _, f in image_findings), *(f for _, _, f in box_found)]
    box_found = [found for found in box_found if not found[2].is_warning]
    errors = [finding for finding in every if not finding.is_warning]
    if errors and not skip_bad:
        raise ValueError(
            f"{name}: {len(errors)} thing(s) are wrong (`skip_bad=True`, or --skip-bad, drops and "
            f"counts them):\n{report(errors)}"
        )
    kept, counts = _keep_good(examples, bad_images, {(i, box) for i, box, _ in box_found})
    unread = [f for f in findings if f.box is None and f.kind not in OF_NO_IMAGE]
    counts["dropped_images"] = len(bad_images) + len(unread)
    counts["dropped_boxes"] = len(box_found) + sum(f.box is not None for f in findings)
    if any(example.num_boxes for example in kept):
        every += empty_classes(name, kept, class_names)
    else:
        lost = {
            "at most 1 px wide or high": counts["boxes_of_at_most_1_px"],
            "bad and were dropped": counts["dropped_boxes"],
            "of images that were dropped": sum(len(examples[i].boxes) for i in bad_images),
            "images": counts["dropped_images"],
        }
        every.insert(0, nothing_left(name, kept, lost, written.ignored, written.are_fractions))
    return kept, {what: number for what, number in counts.items() if number}, every


def _all_sized(examples):
    """Reads the headers of images without a size: all examples, and (position, `Finding`)s."""
    examples, found = list(examples), []
    without = [i for i, example in enumerate(examples) if not (example.height and example.width)]
    headers = read_headers([examples[i] for i in without])
    for i, header in zip(without, headers, strict=True):
        examples[i] = _sized(examples[i], header)
        if isinstance(header, Exception):
            why = reason(header)
            message = f"neither the annotation nor the file has height and width: {why}"
            found.append((i, Finding("image size", str(examples[i].file), None, message)))
    return examples, found


def _sized(example, header):
    if (example.height and example.width) or isinstance(header, Exception):
        return example
    height, width = example.height or header[0], example.width or header[1]
    return dataclasses.replace(example, height=height, width=width)


def _keep_good(examples, bad_images, bad_boxes):
    """Drops, clips and leaves out: returns the examples that remain, and counts of boxes."""
    kept, num_clipped, num_specks = [], 0, 0
    for i, example in enumerate(examples):
        if i in bad_images:
            continue
        good = np.array([(i, box) not in bad_boxes for box in range(len(example.boxes))], bool)
        sides = [example.width, example.height] * 2
        clipped = np.clip(np.asarray(example.boxes, "float32").reshape(-1, 4), 0, sides)
        visible = (clipped[:, 2:] - clipped[:, :2] > MIN_SIDE).all(-1)
        num_clipped += int((good & (np.abs(clipped - example.boxes) > 1e-3).any(-1)).sum())
        num_specks += int((good & ~visible).sum())
        keep = good & visible
        kept.append(
            dataclasses.replace(
                example,
                boxes=clipped[keep].astype("float32"),
                labels=np.asarray(example.labels, "int32")[keep],
                ignore=np.asarray(example.ignore, bool)[keep],
            )
        )
    return kept, {"clipped_boxes": num_clipped, "boxes_of_at_most_1_px": num_specks}
