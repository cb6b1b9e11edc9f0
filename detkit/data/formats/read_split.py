"""A split in any format (COCO JSON, YOLO-txt, Pascal VOC) to the same columns."""

from pathlib import Path

from detkit.data.findings import Findings, UnusableDataError
from detkit.data.formats import coco_json as coco_document
from detkit.data.formats.coco_json import CocoColumns
from detkit.data.formats.label_files import list_files
from detkit.data.formats.voc import is_voc_list, read_voc
from detkit.data.formats.yolo_folders import is_yaml_split
from detkit.data.formats.yolo_txt import read_yolo
from detkit.errors import DataError


def read_columns(annotations: Path, images: Path, findings: Findings) -> CocoColumns:
    """The columns of a split, every value of the right type.

    Args:
        annotations: a COCO annotation file; for YOLO a folder of .txt or ``data.yaml/train``; for VOC a folder of
            .xml or ``ImageSets/Main/train.txt``.
        images: the folder that names of images are relative to.
        findings: takes errors and notices.

    Raises:
        DataError: one for all errors, or if it is in none of these formats.
    """
    try:
        if is_yaml_split(annotations):
            return read_yolo(annotations, images, findings)
        if is_voc_list(annotations):
            return read_voc(annotations, images, findings)
        if annotations.is_dir():
            read_folder = read_voc if list_files(annotations, (".xml",)) else read_yolo
            return read_folder(annotations, images, findings)
    except UnusableDataError:
        raise
    except DataError as error:
        what = "labels or folders that cannot be read"
        findings.fail("labels-unreadable", what, str(error), "correct what is named")
    return coco_document.read_columns(annotations, findings)
