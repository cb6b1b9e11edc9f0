"""Write a data set in YOLO-txt or Pascal VOC format as one in COCO format; data.root=TARGET then takes it.

detkit convert source=/data/yolo target=/data/coco                images are hard links
detkit convert source=/data/voc target=/data/coco images=copy     or none: annotations alone
follow_links=true lets symbolic links lead out of the source.
Training and evaluation read both formats as they are, by data.root=/data/yolo.
"""

from detkit.errors import RecipeError

CHOICES = {"source": (), "target": (), "images": ("link", "copy", "none"), "follow_links": ("true", "false")}


def main(argv: list[str]) -> None:
    """Read and check all splits, write them, and say what was found and what could not be carried over."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    given = {key: value for key, _, value in (argument.partition("=") for argument in argv)}
    options = {"source": "", "target": "", "images": "link", "follow_links": "false"} | given
    for key, value in options.items():
        if key not in CHOICES:
            raise RecipeError(f"{key}: no such argument; there are {', '.join(CHOICES)}")
        if not value or (CHOICES[key] and value not in CHOICES[key]):
            raise RecipeError(f"{key}={value}: must be {' or '.join(CHOICES[key]) or 'a folder'}")
    from detkit.data.index.write_coco import convert  # torch, after the arguments were found right

    source, target, images, follow_links = (options[key] for key in CHOICES)
    print(convert(source, target, images, follow_links=follow_links == "true"))
