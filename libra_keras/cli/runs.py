"""Loads the detector of a run folder or of a `.keras` file."""

from pathlib import Path


def add_run_arguments(parser):
    """Adds RUN and --weights."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or a .keras file")
    parser.add_argument(
        "--weights",
        choices=("last", "best"),
        default="last",
        help="of a run folder: those of the last step (default), or those that did best",
    )


def load_detector(path, weights="last"):
    """Loads a detector.

    Args:
        path: a run folder, or a `.keras` file.
        weights: `"last"` or `"best"`, of a run folder.

    Returns:
        The detector that was saved, such as a `FasterRCNN`.

    Raises:
        ValueError: if there is no such run or file, or the best weights of a `.keras` file, which
            has one set of weights, are asked for.
    """
    import keras

    import libra_keras.models  # noqa: F401  registers what the file names

    path = Path(path)
    if path.is_file() and path.suffix == ".keras":
        if weights != "last":
            raise ValueError(
                f"{path} holds one set of weights. Leave --weights {weights} away, or name the "
                "run folder"
            )
        return keras.saving.load_model(path, compile=False)
    architecture, values = path / "model.json", path / f"{weights}.weights.h5"
    for needed in (architecture, values):
        if not needed.is_file():
            raise ValueError(f"RUN must be a run folder or a .keras file; there is no {needed}")
    model = keras.models.model_from_json(architecture.read_text())
    model.load_weights(values)
    return model
