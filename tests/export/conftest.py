"""The small detector that the tests of serving share, and its exported folder."""

import pytest


@pytest.fixture(scope="session")
def served_model(run_folder):
    """The detector of a run of four steps: it finds something in any image."""
    from libra_keras import runs

    return runs.open(run_folder).model


@pytest.fixture(scope="session")
def served_folder(served_model, tmp_path_factory):
    """Its export: a folder with the version 1."""
    from libra_keras.export import export_saved_model

    folder = tmp_path_factory.mktemp("served") / "detector"
    export_saved_model(served_model, folder)
    return folder
