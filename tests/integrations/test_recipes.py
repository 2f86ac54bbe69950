"""Each recipe with the real package: it learns its scene."""

from pathlib import Path

import keras
import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "integrations"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = [
    "kerascv_retinanet",
    "kerascv_sampler",
    "kerascv_augmentation",
    "kerashub_retinanet",
    "kerashub_sampler",
    "keras_augmentation",
]
PARTS = {"scene", "kerascv_detector", "kerashub_detector"}


def test_all_are_here():
    assert {file.stem for file in RECIPES.glob("*.py")} == {*NAMES, *PARTS}


def test_all_are_short():
    for file in RECIPES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 80, file.name


@pytest.mark.parametrize("name", NAMES)
def test_overfits_a_drawn_scene(name, recipe):
    try:
        assert recipe(name).main() > 0.5
    finally:
        keras.backend.clear_session()
