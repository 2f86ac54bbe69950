"""JAX compiles a step once for each form of image: two forms are two compilations, not more."""

import json

import pytest
from processes import need, run_on


@pytest.mark.slow
def test_two_forms_of_images_are_two_compilations_of_each_step(tmp_path):
    need("jax")
    run_on("jax", "backends/compilations.py", tmp_path)
    assert json.loads((tmp_path / "counts.json").read_text()) == {
        "train_step": 2,
        "predict_step": 2,
    }
