"""How image files are opened: their forms, their size, and how many are in the memory at once."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageFile

from libra_keras import data
from libra_keras.data import decoding, images, read_image
from libra_keras.data.decoding import Budget


def test_one_that_needs_more_than_there_is_is_alone():
    budget, held, most = Budget(10), [], []

    def hold(amount):
        with budget.taken(amount):
            held.append(amount)
            most.append(list(held))
            time.sleep(0.005)
            held.remove(amount)

    threads = [threading.Thread(target=hold, args=(n,)) for n in (3, 4, 3, 25, 4, 10, 6, 30) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert all(len(now) == 1 or sum(now) <= 10 for now in most)
    assert max(map(len, most)) > 1


def test_it_is_not_overtaken():
    budget, order = Budget(10), []
    waiting = threading.Thread(target=lambda: _note(budget, 25, order))
    with budget.taken(5):
        waiting.start()
        time.sleep(0.1)
        small = threading.Thread(target=lambda: _note(budget, 1, order))
        small.start()
        time.sleep(0.1)
        assert order == []
    waiting.join()
    small.join()
    assert order == [25, 1]


def _note(budget, amount, order):
    with budget.taken(amount):
        order.append(amount)


def test_an_error_gives_back_what_was_held():
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), budget.taken(8):
            raise KeyboardInterrupt


@pytest.mark.parametrize(("most", "is_alone"), [(60 * 40 * 4, True), (10**9, False)])
def test_threads_decode_large_images_alone(files, monkeypatch, most, is_alone):
    read, now, numbers = files([(60, 40)] * 12), [], []
    convert = images._rgb_of_pillow

    def slowly(image, exif_rotation):
        now.append(1)
        numbers.append(len(now))
        time.sleep(0.01)
        now.pop()
        return convert(image, exif_rotation)

    monkeypatch.setattr(images, "_rgb_of_pillow", slowly)
    monkeypatch.setattr(decoding, "IN_MEMORY", Budget(most))
    assert data.check_data(read) == []
    assert len(numbers) == 12 and (max(numbers) == 1) == is_alone


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pixels(files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    file = files([(60, 40)]).examples[0].file
    decoding.allow_pixels(2398)
    with pytest.raises(OSError, match=r"000.png .*\(2400 pixels\).* of 2398 .*--max-pixels N"):
        read_image(file)
    decoding.allow_pixels(2400)
    decoding.allow_pixels(None)
    assert read_image(file).shape == (40, 60, 3)


def test_forms_that_start_programs_are_refused_even_inside_of_others(monkeypatch):
    """IPTC's block holds an image of any form."""
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args: called.append(args))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 48\n%%EndComments\nshowpage\n%%EOF\n"
    fields = [
        (3, 20, b"\0\x3c"),
        (3, 30, b"\0\x30"),
        (3, 60, b"\1\0"),
        (3, 120, b"\1"),
        (8, 10, eps),
    ]
    iptc = b"".join(b"\x1c%c%c\0%c" % (*key, len(body)) + body for *key, body in fields)
    for content in (eps, iptc):
        with pytest.raises(OSError, match="not an image in a supported format"):
            read_image(content)
    assert called == []


def test_forms_that_are_registered_later_are_read(monkeypatch):
    class Form(ImageFile.ImageFile):
        format = "NEW"

        def _open(self):
            self._mode, self._size = "L", (2, 1)
            self.tile = [("raw", (0, 0, 2, 1), 4, "L")]

    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    Image.register_open("NEW", Form, lambda prefix: prefix[:3] == b"NEW")
    np.testing.assert_array_equal(read_image(io.BytesIO(b"NEW!\x05\x07"))[0, :, 0], [5, 7])
