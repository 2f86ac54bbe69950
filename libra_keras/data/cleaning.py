"""Turns what a reader found in annotation files into examples that can be trained on."""

import dataclasses

import numpy as np

from libra_keras.data import checks
from libra_keras.data.findings import Finding, report
from libra_keras.data.learnable import MIN_SIDE, empty_classes, nothing_left

OF_NO_IMAGE = ("category", "empty class")  # findings on a file by which no image is lost


def clean(
    examples,
    class_names,
    written,
    findings=(),
    skip_bad=False,
    check_files=True,
    name="data",
):
    """Checks examples as read, then drops what is bad, clips boxes and leaves out specks.

    A box that sticks out of its image is clipped. A box with a side of at most 1 px afterwards is
    left out silently, with a count, as the reference's pipelines do: there is nothing to see. With
    a side of exactly 0, as COCO's train2017 has two, it is a warning besides; a negative side is
    an error. That no box is left to learn from is a finding, not an error: one may still look for
    objects.

    Args:
        examples: list of `Example` with boxes as in the file: they may stick out or be nonsense.
            A height or width of 0 means that the annotation has none; the file's header gives it,
            whatever `check_files` says.
        class_names: K names.
        written: `Written`, what findings call the boxes and show of them.
        findings: `Finding`s of the reader, about things that it already left out.
        skip_bad: bool. If false, findings are an error; if true, they are dropped and counted.
        check_files: bool, whether files must exist with a readable header of the right size.
        name: str, the data set's name in the error.

    Returns:
        Tuple of the clean examples, a dict of counts, and all findings (warnings included). If
        there is nothing to learn from, that is the first one.

    Raises:
        ValueError: if something is wrong and `skip_bad` is false. It lists the first ten.
    """
    image_findings = checks.duplicate_ids(examples)
    if check_files:
        headers = checks.read_headers(examples)
        examples = [_sized(*pair) for pair in zip(examples, headers, strict=True)]
        image_findings += checks.header_findings(examples, headers)
    else:
        examples, found = _all_sized(examples)
        image_findings += found
    bad_images = {i for i, finding in image_findings if not finding.is_warning}
    box_findings = checks.box_findings(examples, len(class_names), written, leaves_out_empty=True)
    box_findings = [found for found in box_findings if found[0] not in bad_images]
    every = [*findings, *(f for _, f in image_findings), *(f for _, _, f in box_findings)]
    box_findings = [found for found in box_findings if not found[2].is_warning]
    errors = [finding for finding in every if not finding.is_warning]
    if errors and not skip_bad:
        raise ValueError(
            f"{name}: {len(errors)} thing(s) are wrong (`skip_bad=True`, or --skip-bad, drops and "
            f"counts them):\n{report(errors)}"
        )
    kept, counts = _keep_good(examples, bad_images, {(i, box) for i, box, _ in box_findings})
    unread = [f for f in findings if f.box is None and f.kind not in OF_NO_IMAGE]
    counts["dropped_images"] = len(bad_images) + len(unread)
    counts["dropped_boxes"] = len(box_findings) + sum(f.box is not None for f in findings)
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
    """Reads the headers of the images without a size: all examples, and (position, `Finding`)s."""
    examples, found = list(examples), []
    without = [i for i, example in enumerate(examples) if not (example.height and example.width)]
    headers = checks.read_headers([examples[i] for i in without])
    for i, header in zip(without, headers, strict=True):
        examples[i] = _sized(examples[i], header)
        if isinstance(header, Exception):
            message = f"the annotation has no height and width, and the file tells none: {header}"
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
