"""Loads the detector of a run folder, of a converted checkpoint, or of a `.keras` file."""

import zipfile
from pathlib import Path

CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")


def add_run_arguments(parser):
    """Adds RUN and --weights."""
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run folder, a converted folder, or a .keras file"
    )
    parser.add_argument(
        "--weights",
        choices=("last", "best"),
        default="last",
        help="of a run folder: those of the last step (default), or those that did best",
    )


def load_detector(path, weights="last"):
    """Loads a detector.

    Args:
        path: a run folder, what `libra-keras convert` has written, or a `.keras` file.
        weights: `"last"` or `"best"`, of a run folder.

    Returns:
        The detector that was saved, such as a `FasterRCNN`.

    Raises:
        ValueError: if there is no such run or file, or it is damaged, or holds another model; or if
            the best weights are asked for where there is one set of weights: of a `.keras` file or
            a converted checkpoint.
    """
    import keras

    import libra_keras.models  # noqa: F401  registers what the file names
    from libra_keras.training.hardware import leave_gpus

    leave_gpus(1)
    path = Path(path)
    is_file = path.is_file() and path.suffix == ".keras"
    if weights != "last" and (is_file or (path / "conversion.json").is_file()):
        raise ValueError(
            f"{path} holds one set of weights. Leave --weights {weights} away, or name a run folder"
        )
    if not is_file:
        _check_folder(path, weights)
    try:
        if is_file and not zipfile.is_zipfile(path):  # Keras would say that there is no file
            raise ValueError("it is damaged, or no .keras file")
        if is_file:
            return _checked(keras.saving.load_model(path, compile=False))
        model = _checked(keras.models.model_from_json((path / "model.json").read_text()))
        model.load_weights(path / f"{weights}.weights.h5")
    # TypeError: what Keras raises over classes that it does not know
    except (TypeError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    return model


def _checked(model):
    from libra_keras.models.detector import Detector

    if not isinstance(model, Detector):
        raise ValueError(f"it is no detector, but a {type(model).__name__}")
    return model


def _check_folder(path, weights):
    if path.suffix in CHECKPOINTS and path.is_file():
        raise ValueError(
            f"{path} looks like a checkpoint of PyTorch; convert it first: libra-keras convert "
            f"{path} --to FOLDER"
        )
    for name in ("model.json", f"{weights}.weights.h5"):
        if not (path / name).is_file():
            raise ValueError(
                "RUN must be a run folder, a converted folder or a .keras file; there is no "
                f"{path / name}"
            )
