"""Every format gives the picture that a careful use of Pillow gives; what is broken is refused by name."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detkit.data.images.decode import BACKGROUND, decode_image
from detkit.data.images.header import read_header
from detkit.errors import DataError


def by_pillow(data: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        gray = np.round(np.asarray(image).astype(np.float64) / 257)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).astype(np.float64)


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    """Smooth colours without symmetry."""
    coarse = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


def jpeg_bytes(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


def check(path: Path, tolerance: float = 0.5) -> None:
    expected, got, header = by_pillow(path.read_bytes()), decode_image(path), read_header(path)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    assert got.shape == expected.shape == (header.height, header.width, 3)
    assert np.abs(got - expected).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # by Pillow
def test_odd_images(shared_data: Path) -> None:
    files = sorted((shared_data / "odd_images" / "train").iterdir())
    assert len(files) == 46
    for path in files:
        check(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format_name", "bits"), [("JPEG", 8), ("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("WEBP", 8)]
)
def test_orientation_in_every_format(tmp_path: Path, format_name: str, orientation: int, bits: int) -> None:
    path, exif = tmp_path / "image", Image.Exif()
    exif[0x0112] = orientation
    image = picture() if bits == 8 else picture()[..., 0].astype(np.uint16) * 250
    Image.fromarray(image).save(path, format_name, exif=exif)
    assert read_header(path).orientation == orientation
    check(path)


@pytest.mark.parametrize(
    ("mode", "format_name"),
    [
        *((mode, "PNG") for mode in ("1", "L", "P", "LA", "RGBA")),
        *((mode, "TIFF") for mode in ("1", "L", "P", "LA", "RGBA", "CMYK")),
        *((mode, "BMP") for mode in ("1", "L", "P")),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
    ],
)
def test_modes(tmp_path: Path, mode: str, format_name: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(picture()[::-1, ::-1, 0]))
    image.save(tmp_path / "image", format_name)
    check(tmp_path / "image")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_colour_named_transparent(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    image.save(tmp_path / "image.png", transparency=image.getpixel((0, 0)))
    check(tmp_path / "image.png")
    assert decode_image(tmp_path / "image.png")[0, 0].tolist() == [BACKGROUND] * 3


def test_animations_give_their_first_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    for format_name in ("PNG", "WEBP"):
        frames[0].save(tmp_path / "image", format_name, save_all=True, append_images=frames[1:], lossless=True)
        assert read_header(tmp_path / "image").animated
        assert np.array_equal(decode_image(tmp_path / "image"), picture())


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 32896, 65535]], dtype=np.uint16)
    for name in ("image.png", "image.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        assert decode_image(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_reduced_decoding(tmp_path: Path, format_name: str, reduce: int) -> None:
    """The size is rounded up; whole squares of pixels become their mean, the colours keep their order."""
    exif = Image.Exif()
    exif[0x0112] = 5  # transposed
    Image.fromarray(picture(61, 91)).save(tmp_path / "image", format_name, exif=exif, quality=95)
    full, small = decode_image(tmp_path / "image"), decode_image(tmp_path / "image", reduce)
    assert full.shape == (91, 61, 3)
    assert small.shape == (-(-91 // reduce), -(-61 // reduce), 3)
    rows, columns = 91 // reduce, 61 // reduce
    squares = full[: rows * reduce, : columns * reduce].reshape(rows, reduce, columns, reduce, 3)
    assert np.abs(small[:rows, :columns] - squares.mean(axis=(1, 3))).max() < (8 if format_name == "JPEG" else 1)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("reduce", [1, 8])
def test_cut_jpegs_are_refused(tmp_path: Path, keep: float, reduce: int) -> None:
    """With and without an end marker put after the cut, which satisfies every decoder."""
    path, data = tmp_path / "cut.jpg", jpeg_bytes(picture(240, 320))
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError, match=r"cut\.jpg: the JPEG is cut: its end marker is missing"):
        decode_image(path, reduce)
    path.write_bytes(data[: int(keep * len(data))] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"cut\.jpg: the JPEG is damaged: its coded pixels end before"):
        decode_image(path, reduce)


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("keep", [0.2, 0.7, 0.98])
def test_other_cut_files_are_refused(tmp_path: Path, format_name: str, keep: float) -> None:
    path = tmp_path / "cut"
    Image.fromarray(picture(240, 320)).save(path, format_name)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"{path}: the {format_name} is cut"):
        decode_image(path)


def test_grey_by_right_is_no_cut(tmp_path: Path) -> None:
    """A decoder leaves what is missing at 128; a picture may end in that grey too."""
    image = picture(100, 150)
    image[50:] = 128
    for subsampling in (0, 2):
        (tmp_path / "grey.jpg").write_bytes(jpeg_bytes(image, subsampling=subsampling))
        assert decode_image(tmp_path / "grey.jpg")[-8:, -8:].tolist() == [[[128] * 3] * 8] * 8


def test_picture_after_the_end_marker_is_ignored(tmp_path: Path) -> None:
    """Phones append a second picture; the first is whole even when the second is cut."""
    second = jpeg_bytes(picture(200, 300))
    (tmp_path / "two.jpg").write_bytes(jpeg_bytes(picture()) + second[: len(second) // 2])
    assert np.array_equal(decode_image(tmp_path / "two.jpg"), by_pillow(jpeg_bytes(picture())))


def png_chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def small_png(width: int, height: int, colours: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(small_png(30_000, 30_000))
    with pytest.raises(DataError, match=r"bomb\.png: 30000 x 30000 .* 178,956,970.*DETKIT_MAX_PIXELS"):
        decode_image(path)
    monkeypatch.setenv("DETKIT_MAX_PIXELS", "2000000000")  # beyond what the decoder itself takes
    path.write_bytes(small_png(40_000, 30_000))
    with pytest.raises(DataError, match=r"bomb\.png: cannot be decoded: .*CV_IO_MAX_IMAGE_PIXELS"):
        decode_image(path)
    monkeypatch.setenv("DETKIT_MAX_PIXELS", "5000")
    path.write_bytes(jpeg_bytes(picture()))
    with pytest.raises(DataError, match="90 x 60 pixels are more than 5,000"):
        read_header(path)
    monkeypatch.setenv("DETKIT_MAX_PIXELS", "many")
    with pytest.raises(DataError, match="DETKIT_MAX_PIXELS must be a whole number of pixels; got 'many'"):
        read_header(path)


def test_pillow_refuses_bombs_of_its_formats(tmp_path: Path) -> None:
    path = tmp_path / "bomb.bmp"
    Image.fromarray(picture()).save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.bmp: .*900000000 pixels.*a larger BMP cannot be read"):
        read_header(path)


JPEG = jpeg_bytes(picture())
FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (small_png(0, 7), "the image has no pixels: 0 x 7"),
        (small_png(5, 5, colours=5), "no valid IHDR chunk"),
        (small_png(500, 500), "it cannot be decoded"),
        (small_png(5, 5).replace(b"IEND", b"zTXt"), "chunk zTXt fails its checksum"),
        (small_png(5, 5)[:-12] + png_chunk(b"zTXt", b"a\0\0no zlib"), "in a zTXt chunk"),
        (JPEG[:FRAME] + b"\xff\xda\0\x02" + JPEG[-2:], "no frame of 1, 3 or 4 channels"),
        (JPEG[:FRAME] + b"\xff\xd9", "no picture in it"),
        (JPEG[:FRAME], "it ends before the picture begins"),
        (JPEG[: FRAME + 4] + b"\x09" + JPEG[FRAME + 5 :], "cannot be decoded"),
    ],
)
def test_damaged_structure(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(DataError, match=f"bad.*{message}"):
        decode_image(tmp_path / "bad")


def test_values_without_a_fixed_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff: TIFF of 32 bits has no fixed white"):
        decode_image(tmp_path / "float.tiff")


def test_header_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jpg: cannot be read: No such file"):
        read_header(tmp_path / "nowhere.jpg")


def test_reduce_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reduce must be 1, 2, 4 or 8; got 3"):
        decode_image(tmp_path / "any.jpg", 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x02"])
def test_broken_exif_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "image.jpg").write_bytes(JPEG[:2] + segment + JPEG[2:])
    assert read_header(tmp_path / "image.jpg").orientation == 1
    assert np.array_equal(decode_image(tmp_path / "image.jpg"), by_pillow(JPEG))


@pytest.mark.parametrize("size_hw", [(97, 131), (96, 128), (81, 65)])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_cut_that_was_given_an_end_marker_is_refused(
    tmp_path: Path, size_hw: tuple[int, int], options: dict[str, object], mode: str
) -> None:
    """At borders of passes and of restarts too, and where the last blocks are cut by the image's edge."""
    noisy = cv2.add(picture(*size_hw), np.random.default_rng(0).integers(0, 20, (*size_hw, 3), dtype=np.uint8))
    stream = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(stream, "JPEG", **options)
    data, path = stream.getvalue(), tmp_path / "sealed.jpg"
    path.write_bytes(data)
    assert np.abs(decode_image(path) - by_pillow(data)).max() <= (3 if mode == "CMYK" else 1)
    borders = [at for at in range(600, len(data) - 200) if data[at] == 0xFF and data[at + 1] != 0]
    for cut in [*range(700, len(data) - 200, len(data) // 12), *borders[:: max(1, len(borders) // 8)]]:
        path.write_bytes(data[:cut] + b"\xff\xd9")
        with pytest.raises(DataError, match=r"sealed\.jpg: the JPEG is (damaged|cut)|sealed\.jpg: the image is cut"):
            decode_image(path)


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("size_hw", [(1, 1), (3, 9), (9, 15), (7, 31)])
def test_tiny_jpegs_in_passes_are_reduced(tmp_path: Path, size_hw: tuple[int, int], reduce: int) -> None:
    for mode in ("RGB", "L", "CMYK"):
        colour = Image.new("RGB", (size_hw[1], size_hw[0]), (200, 120, 40)).convert(mode)
        colour.save(tmp_path / "tiny.jpg", progressive=True)
        expected = by_pillow((tmp_path / "tiny.jpg").read_bytes())[::reduce, ::reduce]
        small = decode_image(tmp_path / "tiny.jpg", reduce)
        assert small.shape == expected.shape and np.abs(small - expected).max() <= 2


def test_passes_without_the_last_bits_are_refused(tmp_path: Path) -> None:
    data, path = jpeg_bytes(picture(), progressive=True), tmp_path / "passes.jpg"
    path.write_bytes(data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"passes\.jpg: the JPEG is damaged: it ends before its last scans"):
        decode_image(path)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "LA"])
def test_changed_pixels_of_a_png_fail_their_checksum(tmp_path: Path, mode: str) -> None:
    """Whoever decodes it: Pillow alone would not look."""
    path = tmp_path / "flipped.png"
    Image.fromarray(picture()).convert(mode).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=r"flipped\.png: the (image is cut or damaged|PNG is damaged: chunk IDAT fails)"
    ):
        decode_image(path)
