"""Which image belongs to an annotation file of Pascal VOC."""

from pathlib import PurePosixPath, PureWindowsPath

# In order: where files of one stem differ in nothing else, an earlier one is the image.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2",
)  # fmt: skip
ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"


class ImageFinder:
    """Finds the images of a data set's annotation files, below its folder and nowhere else.

    The image has the stem of its XML file, beside it or, for `Annotations/a/0.xml`, in
    `JPEGImages/a/`. If there is none, it is the one that the XML names, from `JPEGImages` on or
    beside where it should be. Annotation tools write the name once; the stem survives renaming.
    Where several images have the stem, such as a mask beside the photograph, the name decides.

    Args:
        folder: `Path` of the data set.
    """

    def __init__(self, folder):
        self.folder = folder
        self._listed = {}  # the images of each folder by stem

    def find(self, file, written):
        """Returns the path of an image, which may not exist.

        Args:
            file: `Path` of the XML file.
            written: str, the name of the image in it.
        """
        top, place = self._places(file)
        inside, name = _relative(written)
        candidates = self._images(place).get(file.stem, [])
        if candidates:
            return _named(candidates, name) or candidates[0]
        for folder in dict.fromkeys((top / inside, place / inside, place)):
            listed = self._images(folder)
            stems = dict.fromkeys((name, PurePosixPath(name).stem))
            candidates = [path for stem in stems for path in listed.get(stem, [])]
            if candidates:
                return _named(candidates, name) or candidates[0]
            if name and (folder / name).is_file():
                return folder / name
        return place / f"{file.stem}.jpg"

    def _places(self, file):
        """The folder that names of images start from, and that of the file's own image."""
        parts = file.parent.relative_to(self.folder).parts
        if ANNOTATIONS not in parts:
            return file.parent, file.parent
        depth = parts.index(ANNOTATIONS)
        top = self.folder.joinpath(*parts[:depth], IMAGES)
        return top, top.joinpath(*parts[depth + 1 :])

    def _images(self, folder):
        """The images of a folder by stem; other files, such as text, may lie beside them."""
        if folder not in self._listed:
            listing = sorted(folder.iterdir()) if folder.is_dir() else []
            images = [path for path in listing if path.suffix.lower() in IMAGE_SUFFIXES]
            by_stem = self._listed[folder] = {}
            for path in sorted(images, key=lambda p: IMAGE_SUFFIXES.index(p.suffix.lower())):
                by_stem.setdefault(path.stem, []).append(path)
        return self._listed[folder]


def _relative(written):
    """A written name as the folder that it lies in, and the name; no folder if that leads out."""
    path = PurePosixPath(written.replace("\\", "/"))
    leads_out = path.is_absolute() or PureWindowsPath(written).drive or ".." in path.parts
    return ("" if leads_out else path.parent), path.name


def _named(paths, name):
    """The path of a name, or of one that differs from it in upper and lower case; or `None`."""
    same = [path for path in paths if path.name == name]
    alike = [path for path in paths if path.name.lower() == name.lower()]
    return next(iter(same + alike), None)
