"""Decodes every image file of a split once, on all cores, to find broken files before a training.

A decoder is C code, which a damaged file can crash. That file is then named, and the others are decoded.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from detkit.data.checking.process_pool import Death, available_cores, work_on_all
from detkit.data.findings import Findings, Place
from detkit.data.images.decode import decode_image
from detkit.errors import DataError
from detkit.progress import progress_bar


def decode_all(
    folder: Path,
    names: list[str],
    image_ids: np.ndarray,
    sizes_hw: np.ndarray,
    findings: Findings,
    num_workers: int | None = None,
    console: Console | None = None,
) -> int:
    """Add to the findings every file that cannot be decoded, or whose size is not that in the annotations.

    Args:
        folder: of the images.
        names: of the images, relative to the folder.
        image_ids: (images,) shown in findings.
        sizes_hw: (images, 2) upright, as the annotations say.
        findings: to add to.
        num_workers: processes; None: one for each core that this process may use.
        console: for the progress bar; None: stderr.

    Returns:
        How many files were decoded to the right size.

    Raises:
        ValueError: if ``num_workers`` is less than 1.
    """
    num_workers = available_cores() if num_workers is None else num_workers
    undecodable: dict[int, Place] = {}
    resized: dict[int, Place] = {}
    with progress_bar(console) as progress:
        task = progress.add_task(f"decoding {folder}", total=len(names))
        for row, result in work_on_all(partial(_decoded_hw, folder), names, num_workers):
            image_id, stated = int(image_ids[row]), (int(sizes_hw[row, 0]), int(sizes_hw[row, 1]))
            death = f"{folder / names[row]}: the process that decoded it died"
            decoded = f"{death} ({result.how})" if isinstance(result, Death) else result
            if isinstance(decoded, str):
                undecodable[row] = Place(f"image {image_id}: {decoded}", names[row], image_id)
            elif decoded != stated:
                sizes = f"{names[row]} is {decoded[1]} x {decoded[0]}, not {stated[1]} x {stated[0]}"
                resized[row] = Place(f"image {image_id}: {sizes}", names[row], image_id)
            num_bad = len(undecodable) + len(resized)
            progress.update(task, advance=1, description=f"decoding {folder}, {num_bad} bad")
    findings.error(
        "image-undecodable",
        "image files that cannot be decoded",
        len(undecodable),
        (undecodable[row] for row in sorted(undecodable)),
        "copy them again, or remove their images from the annotation file",
    )
    findings.error(
        "image-decoded-size",
        "images whose decoded size is not that in the annotations",
        len(resized),
        (resized[row] for row in sorted(resized)),
        "their boxes would not fit; correct width and height, or the files",
    )
    return len(names) - len(undecodable) - len(resized)


def _decoded_hw(folder: Path, name: str) -> tuple[int, int] | str:
    """Height and width of the decoded image, or why it cannot be decoded."""
    cv2.setNumThreads(0)  # there is one process for each core
    try:
        height, width = decode_image(folder / name).shape[:2]
    except DataError as error:
        return str(error)
    return height, width
