"""Fonts for names in any script."""

import warnings

import numpy as np
import pytest
from PIL import ImageFont

from libra_keras.visualization import draw_detections, fonts
from libra_keras.visualization.fonts import font_for


@pytest.fixture
def only(monkeypatch):
    """Returns a function that names all fonts there are, beside Pillow's own."""

    def there_are(*names):
        fonts._name_for.cache_clear()
        monkeypatch.setattr(fonts, "_names", lambda: iter(names))

    yield there_are
    fonts._name_for.cache_clear()


@pytest.fixture
def matplotlibs():
    pytest.importorskip("matplotlib")
    return list(fonts._names())[-1]


def shown(text, font=None):
    mask = (font or font_for(text, 20)).getmask(text)
    return mask.size, bytes(mask)


def label(name):
    picture = draw_detections(
        np.zeros((80, 120, 3), "uint8"), [[20, 40, 90, 70]], [0], None, [name]
    )
    return picture[:40].tobytes()


def test_ascii_has_pillows_font_and_no_other_is_looked_for(only):
    only(None)
    for text in ("cat 0.93", "", "~!{}"):
        assert shown(text) == shown(text, ImageFont.load_default(20))


def test_other_letters_are_told_apart(only, matplotlibs):
    only("no such font.ttf", matplotlibs)
    texts = "é", "ü", "ß", "ж", "\U0010ffff"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No font was found")  # for the last, which is no letter
        assert len({shown(text) for text in texts}) == len({label(text) for text in texts}) == 5
    assert font_for("Fußgänger 0.93", 20).getname()[0] == "DejaVu Sans"


def test_the_font_that_has_most_letters_is_taken_and_what_to_install_is_told(only, matplotlibs):
    only(matplotlibs)
    with pytest.warns(UserWarning, match="Install one .* Noto Sans CJK") as told:
        assert font_for("ж猫", 20).getname()[0] == "DejaVu Sans"
        font_for("ж猫", 30)
    assert len(told) == 1
    with pytest.warns(UserWarning, match="No font was found"):
        assert shown("猫") == shown("犬", ImageFont.load_default(20))  # boxes


def test_a_font_is_found_by_its_name_or_in_matplotlib(monkeypatch, matplotlibs):
    asked = []
    monkeypatch.setattr(fonts, "_missing", lambda name, letters: asked.append(name) or 1)
    fonts._name_for.cache_clear()
    with pytest.warns(UserWarning, match="No font was found"):
        font_for("é", 20)
    assert asked == ["", *fonts.NAMES, matplotlibs]
    fonts._name_for.cache_clear()
