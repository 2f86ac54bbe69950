"""The data of a run: read, described, and with proposals where the detector needs them."""

import contextlib
import dataclasses
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
from PIL import ExifTags, Image

from libra_keras import data
from libra_keras.data import Augmentation, DetectionData, InputPolicy
from libra_keras.data.decoding import allow_pixels, opened
from libra_keras.data.findings import nothing_to_learn
from libra_keras.data.image_cache import SPARE
from libra_keras.data.layouts import Layout
from libra_keras.data.sources import TFDS, find_layout, is_voc
from libra_keras.evaluation.class_matching import check_classes
from libra_keras.files.reading import explained
from libra_keras.files.replacing import check_replaceable_files, check_writable_file
from libra_keras.models import FastRCNN, RegionProposalNetwork
from libra_keras.runs.config import DataConfig, TrainConfig
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.resuming import reading_of
from libra_keras.visualization import augmented

SHOWN = 10  # findings, or damaged images
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SOFTWARE = "libra-keras check-data"  # recorded in pictures, so that a later one may replace them


def named_after(
    config: TrainConfig, train: DetectionData | None, val: DetectionData | None
) -> TrainConfig:
    """Returns a config that names the given data, unless one of the two is still to be read."""
    if train is None or val is None:
        return config
    return config.replace(data={"source": train.name.replace("/", "-")})


def load_both(
    config: DataConfig, train: DetectionData | None = None, val: DetectionData | None = None
) -> tuple[DetectionData, DetectionData]:
    """Reads what a run learns from and is measured on, unless given; refuses what cannot be learnt
    from or measured on, and prints summaries of both."""
    if train is None or val is None:
        _tell(config)
    if train is None and val is None:
        check_two_splits(config)
    if train is None:  # data without images are false
        train = read_split(_to_learn_from(config), config.train_split, "train")
    if nothing := nothing_to_learn(train):
        raise ValueError(f"{train.summary()}\n  {nothing}")
    if val is None:
        split = config.val_split if config.val_fraction is None else config.train_split
        val = read_split(config, split, "val")
    check_classes(train.class_names, train.num_classes, val)
    if not len(val):
        raise ValueError(f"There are no images to measure on: {val.summary()}")
    for part in (train, val):
        nothing = nothing_to_learn(part)
        findings = list(dict.fromkeys([nothing, *part.findings] if nothing else part.findings))
        print(part.summary())
        for finding in findings[:SHOWN]:
            print(f"  {finding}")
        if len(findings) > SHOWN:
            print(f"  ... {len(findings)} in total; libra-keras check-data lists them")
    if nothing_to_learn(val):
        print(_meaningless(val))
    if val.num_classes < train.num_classes:
        print(
            f"{val.name} has {val.num_classes} of the {train.num_classes} classes to learn; the "
            "numbers refer to these"
        )
    _tell_shared(train, val)
    return train, val


def shared_images(train: DetectionData, val: DetectionData) -> list[str]:
    """Returns the names of the images of `val` that are files of `train` too, by their paths,
    whatever links lead to their folders."""
    if not (train.has_files and val.has_files):
        return []
    # Of folders alone: asking for each of 100,000 files takes seconds, and minutes over a network.
    folder_of = functools.cache(os.path.realpath)

    def places(own):
        paths = (os.path.split(example.file) for example in own.examples)
        return [(folder_of(folder), name) for folder, name in paths]

    learned = set(places(train))
    return [place[1] for place in places(val) if place in learned]


def _tell_shared(train, val):
    """Warns of images that are both learned from and measured on; of the same split, named for
    both, it is a mere note."""
    if shared := shared_images(train, val):
        kind = "Note" if train.name == val.name else "Warning"
        print(
            f"{kind}: {len(shared)} of the {len(val)} images to measure on are also trained on, "
            f"such as {shared[0]}: numbers measured on them say nothing about other images",
            file=sys.stderr,
            flush=True,
        )


def load(config: DataConfig, split: str | None, role: str) -> DetectionData:
    """Reads one split for a role, `"train"` or `"val"`; only prints a message if it has no box to
    learn from, since boxes may be looked for there."""
    _tell(config)
    own = read_split(config, split, role)
    nothing = nothing_to_learn(own)
    if nothing:
        print(f"{nothing}\n{_meaningless(own)}")
    return own


def load_measured(
    folder: RunFolder, given: Mapping[str, Any], split: str | None
) -> tuple[DataConfig, DetectionData]:
    """Reads what a detector is to be measured on. Data that the run in `folder` learned from are
    read as it read them, but for the fields given; without a split, what it was measured on."""
    recorded = reading_of(folder, given["source"])
    own = dataclasses.replace(recorded or DataConfig(), **given)
    if recorded is None:
        return own, load(own, split, "val")
    if split is None:
        split = own.val_split if own.val_fraction is None else own.train_split
        return own, load(own, split, "val")
    if "val_fraction" not in given:
        own = dataclasses.replace(own, val_fraction=None)
    found = load(own, split, "val")
    _tell_shared(read_split(_to_learn_from(recorded), recorded.train_split, "train"), found)
    return own, found


def layout_of(config: DataConfig) -> Layout:
    """Detects the layout of a run's data."""
    return find_layout(config.source, config.format, config.annotations, config.images)


def check_two_splits(config: DataConfig) -> None:
    """Refuses to measure on the images that are learned from unless both are named."""
    layout = layout_of(config)
    if config.val_fraction is not None and config.val_split:
        raise ValueError("--val-split and --val-fraction exclude each other: omit one of them")
    if config.val_fraction is None and not config.val_split and len(layout.splits) == 1:
        raise ValueError(
            f"{config.source} has only one split, {next(iter(layout.splits))!r}. Measure on a part "
            "of it with --val-fraction 0.2, or name what to measure on with --val-split"
        )


def _tell(config):
    """Prints the detected layout of a folder."""
    layout = layout_of(config)
    if layout.form not in ("shapes", "tfds"):
        print(f"{config.source} is {layout}")


def _meaningless(own):
    return f"Numbers measured on {own.name} are meaningless."


def read_split(config: DataConfig, split: str | None, role: str) -> DetectionData:
    """Reads one split of the data of a run, and sets the maximum pixels of its images."""
    allow_pixels(config.max_pixels)
    return data.load(
        config.source,
        split,
        role,
        config.format,
        config.skip_bad,
        config.annotations,
        config.corners,
        config.images,
        config.class_names or None,
        config.val_fraction,
        config.allow_outside,
    )


def _to_learn_from(config):
    """What `--annotations` replaces are those of TFDS that a run is measured on."""
    is_tfds = config.source.startswith(TFDS)
    return dataclasses.replace(config, annotations=None) if is_tfds else config


def check_voc(is_wanted: bool, model: keras.Model) -> None:
    """Refuses Pascal VOC's AP for a model that knows no classes."""
    if is_wanted and isinstance(model, RegionProposalNetwork):
        raise ValueError(
            "--voc requires a detector with classes; a RegionProposalNetwork only has a recall"
        )


def wants_voc(config: DataConfig) -> bool:
    """Whether to measure Pascal VOC's AP too: if the data are VOC's, or if requested."""
    return config.voc or is_voc(config.source, config.format, config.annotations)


def augmentation_of(config: DataConfig, policy: InputPolicy) -> Augmentation:
    """Returns a preset for the sizes of a policy, with the other options of the config."""
    preset = Augmentation.preset(config.augment, policy.short_side)
    return dataclasses.replace(
        preset,
        short_sides=config.short_sides or preset.short_sides,
        vertical_flip=config.vertical_flip,
        quarter_turns=float(config.quarter_turns),
    )


def batch_options(config: TrainConfig, policy: InputPolicy) -> dict[str, Any]:
    """Returns arguments of `data.training_batches`."""
    own = config.data
    return {
        "batch_size": config.schedule.batch,
        "flip": own.flip,
        "seed": config.run.seed,
        "drop_empty": own.drop_empty,
        "cache": own.cache,
        "augment": augmentation_of(own, policy),
    }


def check_show(config: DataConfig, path: str) -> None:
    """Refuses a picture that cannot be written, or that would be among the images of the data."""
    check_writable_file(path, "--show")
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(f"--show must end in {', '.join(PICTURES)}. Received: {path}")
    folders = [Path(each).resolve() for each in (config.source, config.images) if each]
    if any(Path(path).resolve().is_relative_to(folder) for folder in folders):
        raise ValueError(f"--show must not lie in the folder of the data. Received: {path}")
    check_replaceable_files([path], "picture of an earlier --show", _is_shown, overwrite=True)


def _is_shown(path):
    try:
        with explained(path), opened(path) as picture:
            return picture.getexif().get(ExifTags.Base.Software) == SOFTWARE
    except (OSError, ValueError):
        return False


def show_augmented(
    config: DataConfig, own: DetectionData, sides: tuple[int, int], path: str
) -> None:
    """Draws sixteen images as a run with inputs of these sides would see them."""
    policy = InputPolicy(*sides)
    picture = augmented(own, policy, augmentation_of(config, policy), config.flip)
    note = Image.Exif()
    note[ExifTags.Base.Software] = SOFTWARE
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, exif=note)
    print(f"{path}: images of {own.name} as a model sees them in training", flush=True)


def with_given_proposals(
    config: DataConfig, train: DetectionData, val: DetectionData, model: keras.Model
) -> tuple[DetectionData, DetectionData]:
    """Returns both with the proposals of their files, if the model requires them."""
    return (
        add_given(train, config.proposals_file, model),
        add_given(val, config.val_proposals_file, model, "--val-proposals-file"),
    )


def add_given(
    own: DetectionData, file: str | None, model: keras.Model, option: str = "--proposals-file"
) -> DetectionData:
    """Returns data with the proposals of a file; raises if a model that requires them gets none, or
    another model gets some."""
    needs = isinstance(model, FastRCNN)
    if needs and not file and own.max_proposals is None:
        raise ValueError(
            f"a FastRCNN proposes no boxes itself: it requires {option} FILE, with proposals for "
            f"{own.name}; libra-keras propose writes such files"
        )
    if file and not needs:
        raise ValueError(
            f"{option} is only for fast_rcnn models; a {type(model).__name__} does not use it"
        )
    return data.with_proposals(own, file) if file else own


def tell_cache(source: Any) -> None:
    """Prints how much space the cache of a `TrainingSource` takes, if it has one, and warns if
    there is less."""
    if not source.caches:
        return
    needed = [cache.bytes_needed() for cache in source.caches.values()]
    total, missing = (sum(sizes) for sizes in zip(*needed, strict=True))
    folder = next(iter(source.caches.values())).folder
    free = max(shutil.disk_usage(folder).free - SPARE, 0)
    line = f"cache: {_gigabytes(total)} for {len(source.data)} images in {folder}"
    if missing > free:
        line += f"; only {_gigabytes(free)} may be used: the rest is decoded in every epoch"
    print(line, flush=True)


def _gigabytes(number):
    return f"{number / 1e9:.2g} GB"


@contextlib.contextmanager
def damage_explained(find: Callable[[], Mapping[str, Mapping[str, str]]]) -> Iterator[None]:
    """Turns errors of data pipelines about damaged images, which TensorFlow buries in a traceback,
    into an error that names the files, which `find` returns by purpose."""
    try:
        yield
    except Exception as error:
        # Either class of data/findings.py; TensorFlow passes their names on only in its text.
        if "DamagedImage" not in f"{type(error).__name__}: {error}":
            raise
        lines = "".join(f"\n  {line}" for line in _damage_lines(find()))
        raise ValueError(f"Too many images are damaged:{lines}") from error


@contextlib.contextmanager
def damage_told(find: Callable[[], Mapping[str, Mapping[str, str]]]) -> Iterator[None]:
    """As `damage_explained`, and prints the damage that was not an error."""
    with damage_explained(find):
        yield
    tell_damage(find())


def tell_damage(damaged: Mapping[str, Mapping[str, str]]) -> None:
    """Prints damaged images, as `damage_explained` finds them, to stderr."""
    count = sum(map(len, damaged.values()))
    if count:
        print(f"{count} damaged image(s), replaced or shown blank:", file=sys.stderr)
    for line in _damage_lines(damaged):
        print(f"  {line}", file=sys.stderr)


def _damage_lines(damaged):
    lines = [
        f"{purpose}: {file}: {why}" for purpose, files in damaged.items()
        for file, why in files.items()
    ]  # fmt: skip
    more = [f"... {len(lines)} in total"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more
