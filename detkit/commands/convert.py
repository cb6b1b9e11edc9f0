"""Write a data set in YOLO-txt or Pascal VOC format as one in COCO format.

detkit convert source=/data/yolo target=/data/coco
detkit convert source=/data/voc target=/data/coco images=copy
Then data.root=TARGET reads it. Training and evaluation also read both formats as they are, by data.root=SOURCE.
"""

from dataclasses import dataclass, field
from typing import Literal

from detkit.commands.help import asks_for_help, print_help
from detkit.errors import DataError
from detkit.recipe.options import read_options


@dataclass(frozen=True)
class ConvertOptions:
    """What is converted.

    Args:
        source: folder of the data set.
        target: folder for the new one.
        images: link makes hard links, copy copies them, none writes the annotations alone.
        follow_links: let symbolic links lead out of the source.
    """

    source: str = field(metadata={"example": "/data/yolo", "exists": DataError})
    target: str = field(metadata={"example": "/data/coco"})
    images: Literal["link", "copy", "none"] = "link"
    follow_links: bool = False


def main(argv: list[str]) -> None:
    """Read and check all splits, write them, and say what was found and what could not be carried over."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, ConvertOptions)
    options, _ = read_options(ConvertOptions, argv)
    from detkit.data.index.write_coco import convert  # torch, after the arguments were found right

    return print(convert(options.source, options.target, options.images, follow_links=options.follow_links))
