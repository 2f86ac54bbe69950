"""Which image belongs to an annotation file of Pascal VOC."""

import shutil

import pytest

from libra_keras import data


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
    for written in ("../../private.png", f"{tmp_path}/private.png"):
        xml.write_text(xml.read_text().replace("x.jpg", written))
        with pytest.raises(ValueError, match="0.jpg: missing file"):
            data.voc(folder, "val")
    for line in ("../../private", f"{tmp_path}/private"):
        (folder / "ImageSets/Main/val.txt").write_text(line)
        with pytest.raises(ValueError, match=f"lists '{line}', outside of"):
            data.voc(folder, "val")
