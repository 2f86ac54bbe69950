"""The reader of CVAT's own XML."""

import numpy as np
import pytest
from PIL import Image

from libra_keras import data
from libra_keras.data.cvat import find

BOX = '<box label="cat" xtl="2" ytl="4.5" xbr="12.25" ybr="12"/>'


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes the XML: the shapes of images, and labels with their type."""

    def write(images, labels=(), attributes='width="60" height="40"'):
        named = "".join(f"<label><name>{n}</name><type>{t}</type></label>" for n, t in labels)
        text = f"<annotations><meta><job><labels>{named}</labels></job></meta>"
        for i, (name, shapes) in enumerate(images.items()):
            if name and ".." not in name:
                (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 40)).save(tmp_path / "images" / name)
            text += f'<image id="{i}" name="{name}" {attributes}>{shapes}</image>'
        (tmp_path / "annotations.xml").write_text(f"{text}</annotations>")
        return tmp_path

    return write


def test_boxes_are_edges(write):
    labels = [("dog", "any"), ("nose", "points"), ("cat", "rectangle")]
    read = data.cvat(write({"a.png": BOX, "d/b.png": ""}, labels))
    assert read.class_names == ("dog", "cat")  # in their order; a point has no box
    first, second = read.examples
    assert first.boxes.tolist() == [[2, 4.5, 12.25, 12]] and first.labels.tolist() == [1]
    assert (first.image_id, second.image_id, second.num_boxes) == (1, 2, 0)
    assert data.check_data(read) == read.findings
    assert [finding.kind for finding in read.findings] == ["empty class"]


def test_other_shapes_are_boxes_or_counted(write):
    shapes = (
        '<polygon label="cat" points="10.5,8;20,5;15,30"/>'
        '<box label="cat" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90.00"/>'
        '<box label="cat" xtl="20" ytl="10" xbr="40" ybr="20" rotation="30"/>'
        '<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4" rotation="0.00"/>'
        '<points label="cat" points="1,1"/><points label="cat" points="1,1"/>'
        '<mask label="cat" rle="3" left="1" top="1" width="2" height="2"/>'
    )
    read = data.cvat(write({"a.png": shapes}))
    # 20 x 10 about (30, 15): on end, 10 x 20; at 30 degrees, 20 cos + 10 sin = 22.32 wide and
    # 20 sin + 10 cos = 18.66 high.
    expected = [[10.5, 5, 20, 30], [25, 5, 35, 25], [18.840, 5.670, 41.160, 24.330]]
    expected.append([1, 2, 3, 4])
    np.testing.assert_allclose(read.examples[0].boxes, expected, atol=1e-3)
    assert read.counts == {
        "polygons_as_boxes": 1,
        "turned_boxes_as_boxes": 2,
        "points_left_out": 2,
        "masks_left_out": 1,
    }


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (BOX.replace("xbr", "x"), "box 1: not a number: it has no xbr"),
        (BOX.replace("12.25", "wide"), "box 1: not a number: its xbr is 'wide'"),
        (BOX.replace("12.25", "inf"), "box 1: not a number: its xbr is 'inf'"),
        (BOX.replace("/>", ' rotation="x"/>'), "box 1: not a number: its rotation is 'x'"),
        (BOX.replace("cat", "cow"), "box 1: class: 'cow' is not one of cat"),
        (BOX.replace('label="cat"', ""), "box 1: class: '' is not one of cat"),
        (BOX.replace("12.25", "1"), "box 1: degenerate box: .xtl 2, ytl 4.5, xbr 1, ybr 12. has"),
        (
            '<polygon label="cat" points="1,1;2"/>',
            "polygon 1: not a number: its points are '1,1;2'",
        ),
        ('<polygon label="cat"/>', "polygon 1: not a number: its points are None"),
    ],
)
def test_a_bad_shape_is_named_or_dropped(write, shape, problem):
    folder = write({"a.png": BOX + shape}, [("cat", "any")])
    with pytest.raises(ValueError, match=rf"1 thing\(s\)[\s\S]*images/a.png, {problem}"):
        data.cvat(folder)
    read = data.cvat(folder, skip_bad=True)
    assert read.counts == {"dropped_boxes": 1} and read.examples[0].num_boxes == 1


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ('width="60" height="x"', r"annotations.xml: image size: image 0 .'a.png'.: its height is"),
        (
            'width="60" height="1e99"',
            "image size: image 0 .*its height is '1e99'",
        ),
        ('width="80" height="40"', "images/a.png: image size: the file is 60x40"),
    ],
)
def test_a_bad_size_is_told(write, attributes, problem):
    folder = write({"a.png": BOX, "b.png": ""}, attributes=attributes)
    with pytest.raises(ValueError, match=problem):
        data.cvat(folder)
    assert data.cvat(folder, skip_bad=True).counts == {"dropped_images": 2}


def test_names_of_images(write):
    folder = write({"a.png": BOX, "../b.png": "", "": ""}, attributes="")
    file = folder / "annotations.xml"
    file.write_text(file.read_text().replace('id="2" name=""', 'id="2" name="a.png"'))
    with pytest.raises(ValueError, match=r"2 thing\(s\)") as error:
        data.cvat(folder)
    assert "file outside: image 1: '../b.png' leads out of the folder" in str(error.value)
    assert "duplicate image: image 2 ('a.png'): there is another" in str(error.value)
    read = data.cvat(folder, skip_bad=True)
    assert (read.examples[0].width, read.examples[0].height) == (60, 40)  # the file's, none written


def test_subsets_are_splits(write):
    folder = write({"x/a.png": BOX, "y/b.png": BOX.replace("cat", "dog")})
    file = folder / "annotations.xml"
    text = file.read_text().replace('name="x/a.png"', 'name="a.png" subset="x"')
    file.write_text(text.replace('name="y/b.png"', 'name="b.png" subset="y"'))
    assert str(find(file)) == str(find(folder)) == "CVAT XML: x, y"
    with pytest.raises(ValueError, match="no split None. It is CVAT XML: x, y"):
        data.cvat(folder)
    read = data.cvat(folder, "y")
    assert read.class_names == ("cat", "dog") and read.examples[0].labels.tolist() == [1]
    assert read.examples[0].file == folder / "images/y/b.png"


def test_other_files(tmp_path):
    file = tmp_path / "annotations.xml"
    assert find(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="Expected annotations.xml of CVAT"):
        data.cvat(tmp_path)
    file.write_text("<annotation/>")  # of an image called annotations.jpg
    assert find(tmp_path) is None
    file.write_text('<annotations><track id="0" label="cat"><box frame="0"/></track></annotations>')
    with pytest.raises(ValueError, match="'CVAT for video'. Export the task as 'CVAT for images"):
        data.cvat(tmp_path)
    file.write_text("<annotations><image>")
    with pytest.raises(
        ValueError, match="annotations.xml cannot be read: ParseError: no element found"
    ):
        find(tmp_path)
