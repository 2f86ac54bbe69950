"""The reader of Pascal VOC folders, and which image belongs to an annotation file."""

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from pycocotools.coco import COCO

from libra_keras import data


def test_corners_are_pixels_counted_from_1(write_voc):
    # VOC's (1, 1)-(60, 40) are the first and last pixels: the whole image.
    folder = write_voc([[("cat", 0, (1, 1, 60, 40)), ("ant", 1, (11, 6, 30, 15))], []])
    read = data.voc(folder, "val")
    assert read.class_names == ("ant", "cat")  # sorted; "head", a part, is no class
    first, second = read.examples
    np.testing.assert_array_equal(first.boxes, [[0, 0, 60, 40], [10, 5, 30, 15]])
    assert first.labels.tolist() == [1, 0]
    assert first.ignore.tolist() == [False, True] and first.num_boxes == 1
    assert (first.image_id, first.width, first.height) == (1, 60, 40)
    assert second.boxes.shape == (0, 4) and second.image_id == 2
    assert read.read_image(0).shape == (40, 60, 3)


def test_a_namespace_changes_nothing(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 60, 40))]])
    file = folder / "Annotations" / "0.xml"
    file.write_text(file.read_text().replace("<annotation>", '<annotation xmlns="http://a.b/c">'))
    read = data.voc(folder, "val")
    assert read.class_names == ("cat",)
    assert read.examples[0].boxes.tolist() == [[0, 0, 60, 40]]
    assert (read.examples[0].width, read.examples[0].height) == (60, 40)


def test_annotations_are_cocos(write_voc, capsys):
    read = data.voc(write_voc([[("cat", 0, (11, 6, 30, 15)), ("dog", 1, (1, 1, 9, 9))]]), "val")
    first, second = read.annotations["annotations"]
    assert first["bbox"] == [10, 5, 20, 10] and first["area"] == 200 and first["iscrowd"] == 0
    assert (first["ignore"], second["ignore"]) == (0, 1)
    assert second["iscrowd"] == 0 and second["category_id"] == read.category_ids[1] == 2
    coco = COCO()
    coco.dataset = json.loads(json.dumps(read.annotations))
    coco.createIndex()
    assert coco.getAnnIds(imgIds=[1]) == [1, 2]


def test_clipped_and_left_out(write_voc):
    boxes = [(-5, 1, 100, 40), (7, 7, 7, 20), (7, 7, 8, 20)]
    read = data.voc(write_voc([[("cat", 0, box) for box in boxes]]), "val")
    # The first is clipped. The second is one pixel wide. The third, two, stays.
    np.testing.assert_array_equal(read.examples[0].boxes, [[0, 0, 60, 40], [6, 6, 8, 20]])
    assert read.counts == {"clipped_boxes": 1, "boxes_of_at_most_1_px": 1}
    assert "1 clipped boxes" in read.summary()


def test_bad_boxes_are_named_or_dropped(write_voc):
    boxes = [("cat", 0, (30, 5, 10, 20)), ("cat", 0, ("x", 1, 2, 3)), ("cat", 0, (1, 1, 9, 9))]
    folder = write_voc([boxes])
    with pytest.raises(ValueError, match="2 thing") as error:
        data.voc(folder, "val")
    assert "0.png, box 0: degenerate box: (xmin 30, ymin 5, xmax 10, ymax 20)" in str(error.value)
    assert "0.png, box 1: not a number: its xmin is 'x'" in str(error.value)
    read = data.voc(folder, "val", skip_bad=True)
    assert read.counts["dropped_boxes"] == 2 and read.examples[0].num_boxes == 1
    assert [finding.kind for finding in read.findings] == ["not a number", "degenerate box"]
    assert len(read.annotations["annotations"]) == 1


def test_an_object_of_no_pixel_is_left_out(write_voc):
    # The last column is the one before the first.
    boxes = [("cat", 0, (8, 1, 7, 20)), ("cat", 0, (1, 1, 9, 9))]
    read = data.voc(write_voc([boxes]), "val")
    assert read.counts == {"boxes_of_at_most_1_px": 1} and read.examples[0].num_boxes == 1
    assert [str(finding).split(": ")[1] for finding in read.findings] == ["empty box"]


def test_unknown_class(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9)), ("dgo", 0, (1, 1, 9, 9))]])
    with pytest.raises(ValueError, match="0.png, object 1: class: 'dgo' is not one of"):
        data.voc(folder, "val", class_names=["dog", "cat"])
    read = data.voc(folder, "val", class_names=["dog", "cat"], skip_bad=True)
    assert read.class_names == ("dog", "cat") and read.examples[0].labels.tolist() == [1]


def test_a_name_listed_twice(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]] * 2)
    (folder / "ImageSets/Main/val.txt").write_text("0\n0\n1\n")
    with pytest.raises(ValueError, match=r"0\.xml: duplicate image: .* 'val' .* entry 2"):
        data.voc(folder, "val")
    read = data.voc(folder, "val", skip_bad=True)
    assert [example.image_id for example in read.examples] == [1, 3]
    assert read.counts == {"dropped_images": 1}


def test_each_annotation_is_parsed_once(write_voc, monkeypatch):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))], [("dog", 0, (1, 1, 9, 9))]])
    (folder / "ImageSets/Main/val.txt").write_text("0\n")
    parsed, parse = [], ET.fromstring
    monkeypatch.setattr(ET, "fromstring", lambda text: (parsed.append(text), parse(text))[1])
    assert data.voc(folder, "val").class_names == ("cat", "dog")
    assert len(parsed) == len(set(parsed)) == 2


def test_a_size_that_is_no_number(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]], size=("wide", 40))
    with pytest.raises(ValueError, match=r"0\.xml: unreadable file: its width is 'wide'"):
        data.voc(folder, "val")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("bndbox", "robndbox", 'it has no "bndbox"'),
        ("ymax", "bottom", "it has no ymax"),
        ("<xmax>9", "<xmax>nan", "its xmax is 'nan'"),
        ("<xmax>9", "<xmax>", "its xmax is ''"),
    ],
)
def test_a_box_that_is_none_is_shown_as_it_is_written(write_voc, old, new, problem):
    folder = write_voc([[("dog", 0, (2, 2, 8, 8)), ("cat", 0, (1, 1, 9, 9))]])
    file = folder / "Annotations/0.xml"
    dog, cat = file.read_text().split("<name>cat")
    file.write_text(f"{dog}<name>cat{cat.replace(old, new)}")
    with pytest.raises(ValueError, match=f"0.png, box 1: not a number: {problem}"):
        data.voc(folder, "val")


def test_boxes_are_shown_as_they_are_written(write_voc):
    boxes = [("cat", 0, (70, 5, "80.50", 20)), ("cat", 0, (9, 5, 8, 20)), ("cat", 0, (1, 1, 9, 9))]
    findings = data.voc(write_voc([boxes]), "val", skip_bad=True).findings
    assert [finding.message.split(") ")[0] for finding in findings] == [
        "(xmin 70, ymin 5, xmax 80.50, ymax 20",
        "(xmin 9, ymin 5, xmax 8, ymax 20",
    ]


def test_missing_and_unreadable_files(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]] * 4)
    (folder / "JPEGImages/0.png").unlink()
    (folder / "JPEGImages/1.png").write_bytes(b"no image")
    (folder / "Annotations/2.xml").write_text("<annotation>")
    with pytest.raises(ValueError) as error:
        data.voc(folder, "val")
    assert all(f"{i}." in str(error.value) for i in range(3))
    read = data.voc(folder, "val", skip_bad=True)
    assert len(read) == 1 and read.counts["dropped_images"] == 3
    assert [image["id"] for image in read.annotations["images"]] == [4]


def test_size_comes_from_the_header_where_there_is_none(write_voc):
    read = data.voc(write_voc([[("cat", 0, (1, 1, 9, 9))]], size=(0, 0)), "val")
    assert (read.examples[0].width, read.examples[0].height) == (60, 40)


def test_wrong_size_is_found(write_voc):
    with pytest.raises(ValueError, match="the file is 60x40 .* annotation has 40x60"):
        data.voc(write_voc([[("cat", 0, (1, 1, 9, 9))]], size=(40, 60)), "val")


def test_no_voc_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="val.txt"):
        data.voc(tmp_path, "val")


@pytest.mark.slow
def test_bccd(photographs):
    train, test = (
        data.voc(photographs("bccd"), split, corners="pixels") for split in ("trainval", "test")
    )
    assert (len(train), len(test)) == (292, 72)
    assert train.class_names == test.class_names == ("Platelets", "RBC", "WBC")
    # BloodImage_00000, the first of the folder, has a white cell at (260, 177)-(491, 376).
    boxes = np.concatenate([example.boxes for example in train.examples + test.examples])
    assert [259, 176, 491, 376] in boxes.tolist()
    # Of 4,888 objects two are a single pixel.
    assert len(boxes) == 4886
    specks = "boxes_of_at_most_1_px"
    assert train.counts.get(specks, 0) + test.counts.get(specks, 0) == 2
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 480).all()
    # LabelImg wrote the files, and so they are read by default.
    train, test = (data.voc(photographs("bccd"), split) for split in ("trainval", "test"))
    assert train.notes == test.notes == ("corners: edges (LabelImg)",)
    edges = np.concatenate([example.boxes for example in train.examples + test.examples])
    np.testing.assert_array_equal(edges, boxes + [1, 1, 0, 0])


def test_images_and_annotations_side_by_side(photographs):
    train, test = (data.voc(photographs("microcontroller"), split) for split in ("train", "test"))
    assert len(train) + len(test) == 149 and train.class_names == test.class_names
    assert train.num_classes == 4 and train.read_image(0).shape == (600, 800, 3)


def test_side_cars_are_no_images(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]])
    images = folder / "JPEGImages"
    for name in ("0.txt", "0.json", "0.PNG.bak", "0.zzz"):
        (images / name).write_text("no image")
    assert data.voc(folder, "val").examples[0].file.name == "0.png"
    (images / "0.png").rename(images / "0.JPG")
    assert data.voc(folder, "val").examples[0].file.name == "0.JPG"


def test_the_name_in_the_xml_decides_between_images_of_one_stem(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]] * 2)
    images, annotation = folder / "JPEGImages", folder / "Annotations" / "0.xml"
    (images / "0.bmp").write_bytes((images / "0.png").read_bytes())
    assert data.voc(folder, "val").examples[0].file.name == "0.png"  # the XML says x.jpg
    text = annotation.read_text()
    annotation.write_text(text.replace("x.jpg", "0.bmp"))
    assert data.voc(folder, "val").examples[0].file.name == "0.bmp"
    # The name of another image: an XML file that was copied, with its image, keeps the old name.
    annotation.write_text(text.replace("x.jpg", "1.png"))
    assert data.voc(folder, "val").examples[0].file.name == "0.png"
    (images / "0.png").rename(images / "renamed.png")
    (images / "0.bmp").unlink()
    annotation.write_text(text.replace("x.jpg", "renamed.png"))
    assert data.voc(folder, "val").examples[0].file.name == "renamed.png"
    # Without lists, images that no XML file is of count, too: that one is the first file's.
    shutil.rmtree(folder / "ImageSets")
    images.rename(folder / "images")
    names = [example.file.name for example in data.voc(folder, "all").examples]
    assert names == ["renamed.png", "1.png"]


@pytest.mark.parametrize(
    ("xml", "image", "written"),
    [
        ("a/0.xml", "a/0.png", "a/0.png"),
        ("a/0.xml", "a/0.png", "0.jpg"),  # its stem tells
        ("a/b/0.xml", "a/b/0.png", ""),
        ("0.xml", "a/b/0.png", "a/b/0.png"),  # the annotations lie flat
        ("0.xml", "a/1.png", r"a\1.png"),  # the folders of Windows
        ("0.xml", "1.PNG", "1.png"),
        ("0.xml", "1.png", "1.JPG"),  # converted
        ("0.xml", "1.png", "1"),
        ("0.xml", "1.png", r"C:\photos\1.png"),
        ("0.xml", "1.png", "/home/me/1.png"),
    ],
)
def test_folders_in_the_names(write_voc, xml, image, written):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]])
    text = (folder / "Annotations/0.xml").read_text().replace("x.jpg", written)
    for file in (folder / "Annotations" / xml, folder / "JPEGImages" / image):
        file.parent.mkdir(parents=True, exist_ok=True)
    (folder / "Annotations/0.xml").unlink()
    (folder / "Annotations" / xml).write_text(text)
    (folder / "JPEGImages/0.png").rename(folder / "JPEGImages" / image)
    (folder / "ImageSets/Main/val.txt").write_text(xml.removesuffix(".xml"))
    assert data.voc(folder, "val").examples[0].file == folder / "JPEGImages" / image


def test_images_of_one_name_in_two_folders(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))], [("dog", 0, (2, 2, 9, 9))]])
    for i, place in enumerate("ab"):
        for kind, suffix in (("Annotations", "xml"), ("JPEGImages", "png")):
            (folder / kind / place).mkdir()
            (folder / kind / f"{i}.{suffix}").rename(folder / kind / place / f"0.{suffix}")
    listing = folder / "ImageSets/Main"
    (listing / "val.txt").write_text("b/0")
    (listing / "train.txt").write_text("a/0")
    read = data.voc(folder, "val")
    assert read.examples[0].file == folder / "JPEGImages/b/0.png"
    # The classes are those of all folders.
    assert read.class_names == data.voc(folder, "train").class_names == ("cat", "dog")


def test_nothing_outside_of_the_folder_is_read(write_voc, tmp_path):
    write_voc([[("cat", 0, (1, 1, 9, 9))]])
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("Annotations", "JPEGImages", "ImageSets"):
        (tmp_path / name).rename(folder / name)
    xml, image = folder / "Annotations/0.xml", folder / "JPEGImages/0.png"
    shutil.copy(xml, tmp_path / "private.xml")
    image.rename(tmp_path / "private.png")
    text = xml.read_text()
    for written in ("../../private.png", f"{tmp_path}/private.png"):
        xml.write_text(text.replace("x.jpg", written))
        with pytest.raises(ValueError, match=f"0.xml: file outside: its filename: '{written}'"):
            data.voc(folder, "val")
        (read,) = data.voc(folder, "val", allow_outside=True).examples
        assert read.file.resolve() == tmp_path / "private.png"
    for line in ("../../private", f"{tmp_path}/private"):
        (folder / "ImageSets/Main/val.txt").write_text(line)
        with pytest.raises(ValueError, match=f"val.txt: file outside: line 1: '{line}' is"):
            data.voc(folder, "val")
