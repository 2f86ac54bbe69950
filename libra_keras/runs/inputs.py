"""The data of a run: read, told of, and with proposals where the detector needs them."""

import shutil
from typing import Any

import keras

from libra_keras import data
from libra_keras.data import DetectionData
from libra_keras.data.findings import nothing_to_learn
from libra_keras.data.image_cache import SPARE
from libra_keras.data.sources import is_voc
from libra_keras.evaluation.class_matching import check_classes
from libra_keras.models import FastRCNN, RegionProposalNetwork
from libra_keras.runs.config import DataConfig, TrainConfig

SHOWN = 10  # findings


def named_after(config: TrainConfig, train: DetectionData | None) -> TrainConfig:
    """Returns a config that names the data which are given in the place of those it named."""
    if train is None:
        return config
    return config.replace(data={"source": train.name.replace("/", "-")})


def load_both(
    config: DataConfig, train: DetectionData | None = None, val: DetectionData | None = None
) -> tuple[DetectionData, DetectionData]:
    """Reads what a run learns from and is measured on, unless it is given, and tells of both.

    Raises:
        ValueError: if there are no such data, or they are bad; if there is no box to learn from;
            if `val` has a class that `train` has not, by its name; or if there is nothing to
            measure on.
    """
    if train is None:  # data without images are false
        train = _read(config, config.train_split, "train")
    nothing = nothing_to_learn(train)
    if nothing:
        raise ValueError(f"{train.summary()}\n  {nothing}")
    if val is None:
        val = _read(config, config.val_split, "val")
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
            print(f"  ... {len(findings)} in all; libra-keras check-data lists them")
    if nothing:  # of val, the last one
        print(_meaningless(val))
    if val.num_classes < train.num_classes:
        print(
            f"{val.name} has {val.num_classes} of the {train.num_classes} classes to learn; the "
            "numbers are about these"
        )
    return train, val


def load(
    config: DataConfig, split: str | None, role: str, annotations: str | None = None
) -> DetectionData:
    """Reads one split of the data of a config; `role` is `"train"` or `"val"`.

    Data without a box to learn from are read too, for boxes may be looked for there; it is said.
    """
    own = _read(config, split, role, annotations)
    nothing = nothing_to_learn(own)
    if nothing:
        print(f"{nothing}\n{_meaningless(own)}")
    return own


def _meaningless(own):
    return f"What is measured on {own.name} means nothing."


def _read(config, split, role, annotations=None):
    form, corners = config.format, config.corners
    return data.load(config.source, split, role, form, config.skip_bad, annotations, corners)


def check_voc(is_wanted: bool, model: keras.Model) -> None:
    """Refuses Pascal VOC's AP for a model that knows no classes."""
    if is_wanted and isinstance(model, RegionProposalNetwork):
        raise ValueError("--voc is for detectors of classes; a RegionProposalNetwork has a recall")


def wants_voc(config: DataConfig) -> bool:
    """Whether Pascal VOC's AP is to be measured too: if the data are VOC's, or it is asked for."""
    return config.voc or is_voc(config.source, config.format)


def batch_options(config: TrainConfig) -> dict[str, Any]:
    """Returns arguments of `data.training_batches`."""
    own = config.data
    return {
        "batch_size": config.schedule.batch,
        "flip": own.flip,
        "seed": config.run.seed,
        "drop_empty": own.drop_empty,
        "cache": own.cache,
    }


def with_given_proposals(
    config: DataConfig, train: DetectionData, val: DetectionData, model: keras.Model
) -> tuple[DetectionData, DetectionData]:
    """Returns both with the proposals of their files, if the model is one that needs them."""
    return (
        add_given(train, config.proposals_file, model),
        add_given(val, config.val_proposals_file, model, "--val-proposals-file"),
    )


def add_given(
    own: DetectionData, file: str | None, model: keras.Model, option: str = "--proposals-file"
) -> DetectionData:
    """Returns data with the proposals of a file, if the model is one that needs them.

    Args:
        own: `DetectionData`.
        file: path, or `None`.
        model: `keras.Model`.
        option: what the option is called.

    Raises:
        ValueError: if such a model has no file, another model has one, or the file is wrong.
    """
    needs = isinstance(model, FastRCNN)
    if needs and not file and own.max_proposals is None:
        raise ValueError(
            f"a FastRCNN proposes no boxes: it needs {option} FILE, with those of {own.name}; "
            "libra-keras propose writes such files"
        )
    if file and not needs:
        raise ValueError(f"{option} is for fast_rcnn models; a {type(model).__name__} uses none")
    return data.with_proposals(own, file) if file else own


def tell_cache(source: Any) -> None:
    """Prints how much room the cache of a run takes, and warns if there is less.

    Args:
        source: `TrainingSource`; without a cache nothing is printed.
    """
    if source.cache is None:
        return
    total, missing = source.cache.bytes_needed()
    free = max(shutil.disk_usage(source.cache.folder).free - SPARE, 0)
    line = f"cache: {_gigabytes(total)} for {len(source.data)} images in {source.cache.folder}"
    if missing > free:
        line += f"; only {_gigabytes(free)} may be used: the rest is decoded in every epoch"
    print(line, flush=True)


def _gigabytes(number):
    return f"{number / 1e9:.2g} GB"
