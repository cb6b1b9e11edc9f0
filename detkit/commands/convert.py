"""Convert a data set from YOLO-txt or Pascal VOC format to COCO format.

detkit convert source=/data/yolo target=/data/coco
detkit convert source=/data/voc target=/data/coco images=copy
The result is used with data.root=TARGET. Training and evaluation also read both formats
without a conversion, with data.root=SOURCE.
"""

from dataclasses import dataclass, field
from typing import Literal

from detkit.commands.help import asks_for_help, print_help
from detkit.errors import DataError
from detkit.recipe.options import read_options


@dataclass(frozen=True)
class ConvertOptions:
    """The options of ``detkit convert``.

    Args:
        source: folder of the data set.
        target: folder of the new data set.
        images: link makes hard links, copy copies the files, none writes only the annotations.
        follow_links: allow symbolic links to files outside of the source.
    """

    source: str = field(metadata={"example": "/data/yolo", "exists": DataError})
    target: str = field(metadata={"example": "/data/coco"})
    images: Literal["link", "copy", "none"] = "link"
    follow_links: bool = False


def main(argv: list[str]) -> None:
    """Read, check and write all splits, and print the findings and what could not be converted."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, ConvertOptions)
    options, _ = read_options(ConvertOptions, argv)
    from detkit.data.index.write_coco import convert  # imports torch, so only after the checks

    return print(convert(options.source, options.target, options.images, follow_links=options.follow_links))
