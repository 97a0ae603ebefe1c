"""Each kind of image file gives the same pixels in training and in `harness.data.write`."""

import io
import os
import struct
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data import imagefolder
from harness.data.crops import whole
from harness.data.imagefolder import BadImage, FolderImages, read_image, shown
from harness.errors import UserError

SHAPE = (16, 16)
RAMP = np.arange(256, dtype=np.uint16).reshape(SHAPE) * 257  # all grey levels of 16 bits, evenly
GREY = (RAMP >> 8).astype(np.uint8)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)


def tiff(values: np.ndarray, bits: int, photometric: int, sample_format: int = 1) -> bytes:
    """Return the bytes of a grey TIFF. Pairs of 12-bit values are packed into three bytes."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = (pairs[:, 0] << 12) | pairs[:, 1]
        data = np.stack([packed >> 16, packed >> 8, packed], axis=-1).astype(np.uint8).tobytes()
    else:
        data = values.astype(f"<u{bits // 8}").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
            278: height, 279: len(data), 339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cv2_png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def with_palette(alpha: bytes | int | None = None) -> bytes:
    image = Image.fromarray(GREY).convert("P")
    image.putpalette(np.stack([255 - np.arange(256)] * 3, 1).astype(np.uint8).tobytes())
    return encoded(image, "PNG", **({} if alpha is None else {"transparency": alpha}))


def rgba() -> Image.Image:
    return Image.fromarray(np.dstack([COLOUR, GREY]))


def frames(kind: str) -> bytes:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    return encoded(first, kind, save_all=True, append_images=[second], lossless=True)


def grey(values):
    return np.stack([values] * 3, axis=-1)


def grey_16(dtype: str) -> Image.Image:
    return Image.fromarray(RAMP.astype(dtype))


COLOURS = {
    "16-bit grey PNG": (cv2_png(RAMP), grey(GREY)),
    "16-bit grey TIFF": (encoded(grey_16("<u2"), "TIFF"), grey(GREY)),
    "16-bit grey TIFF, big-endian": (encoded(grey_16(">u2"), "TIFF"), grey(GREY)),
    "16-bit grey TIFF, white is zero": (tiff(RAMP, 16, 0), grey(255 - GREY)),
    "12-bit grey TIFF": (tiff(RAMP >> 4, 12, 1), grey(GREY)),
    "16-bit PGM": (b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes(), grey(GREY)),
    "12-bit PGM": (b"P5 16 16 4095\n" + (RAMP >> 4).astype(">u2").tobytes(), grey(GREY)),
    "16-bit colour PNG": (cv2_png(COLOUR[..., ::-1].astype(np.uint16) * 257), COLOUR),
    "16-bit colour PNG with alpha": (
        cv2_png(np.dstack([COLOUR[..., ::-1], GREY]).astype(np.uint16) * 257), COLOUR),
    "16-bit PPM": (b"P6 16 16 65535\n" + (COLOUR.astype(">u2") * 257).tobytes(), COLOUR),
    "1 bit": (encoded(Image.fromarray(GREY > 99), "PNG"), grey((GREY > 99) * np.uint8(255))),
    "8-bit grey": (encoded(Image.fromarray(GREY), "BMP"), grey(GREY)),
    "grey with alpha": (encoded(Image.fromarray(np.dstack([GREY, GREY.T]), "LA"), "PNG"),
                        grey(GREY)),
    "palette": (with_palette(), grey(255 - GREY)),
    "palette with a transparent colour": (with_palette(7), grey(255 - GREY)),
    "palette with alpha": (with_palette(bytes(range(256))), grey(255 - GREY)),
    "colour with alpha": (encoded(rgba(), "PNG"), COLOUR),
    "colour with alpha, WebP": (
        encoded(rgba(), "WEBP", lossless=True, exact=True), COLOUR),
    "CMYK TIFF": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"), COLOUR),
    "animated PNG": (frames("PNG"), COLOUR),
    "animated WebP": (frames("WEBP"), COLOUR),
    "TIFF of two pages": (frames("TIFF"), COLOUR),
    "with an orientation in EXIF": (
        encoded(Image.fromarray(COLOUR), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0"
                b"\x01\0\0\0\x06\0\0\0\0\0\0\0"), COLOUR),
}  # fmt: skip
APPROXIMATE = {  # their colours are converted by a formula that rounds
    "CMYK JPEG": encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=100),
    "YCbCr TIFF": encoded(Image.fromarray(COLOUR).convert("YCbCr"), "TIFF"),
}


@pytest.mark.parametrize("name", [*COLOURS, *APPROXIMATE])
def test_every_kind_of_image_gives_its_colours(name, tmp_path):
    content, expected = COLOURS.get(name) or (APPROXIMATE[name], COLOUR)
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = np.asarray(read_image(path))  # the pixels that `harness.data.write` stores
        trained = np.empty((1, *SHAPE, 3), np.uint8)
        rows = np.zeros(1, np.int64)
        FolderImages(tmp_path, ["image.png"]).decoder(rows, rows, whole)(slice(0, 1), trained)
    assert np.array_equal(trained[0], written)
    difference = np.abs(written.astype(int) - expected)
    assert difference.max() == 0 if name in COLOURS else difference.mean() < 12


def test_an_image_in_lab_gives_its_colours(tmp_path):
    lab = Image.new("LAB", SHAPE, (255, 128, 128))  # L* = 100: white
    (tmp_path / "lab.tif").write_bytes(encoded(lab, "TIFF"))
    assert np.asarray(read_image(tmp_path / "lab.tif")).min() >= 250


MODES = "1 L P LA PA RGB RGBA RGBX RGBa CMYK YCbCr LAB HSV I;16 I;16B I;16L I;16N"


@pytest.mark.parametrize("mode", MODES.split())
def test_every_mode_of_pillow_gives_rgb(mode):
    assert imagefolder.to_rgb(Image.new(mode, (5, 4))).mode == "RGB"


REFUSED = {
    "float TIFF": (encoded(Image.fromarray(np.zeros(SHAPE, np.float32)), "TIFF"), "floating-point"),
    "32-bit TIFF": (encoded(Image.fromarray(np.zeros(SHAPE, np.int32)), "TIFF"), "32-bit or sign"),
    "signed 8-bit TIFF": (tiff(GREY, 8, 1, 2), "32-bit or signed values"),
    "float PPM": (b"Pf 2 2 -1.0\n" + bytes(16), "floating-point values"),
    "text": (b"no image", "not an image of a format that Pillow reads"),
    "empty": (b"", "not an image of a format that Pillow reads"),
    "truncated": (COLOURS["colour with alpha"][0][:60], "."),
    "without pixels": (b"P5 0 4 255\n", "."),
    "3.6 gigapixels": (b"P5 60000 60000 255\n", "decompression bomb"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_without_known_colours_is_named_and_refused(name, tmp_path):
    content, reason = REFUSED[name]
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=reason) as caught:
        read_image(path)
    assert " at 0x" not in str(caught.value)  # an object's address differs in every process
    rows = np.zeros(1, np.int64)
    decode = FolderImages(tmp_path, ["x.png"]).decoder(rows, rows, whole)
    with pytest.raises(UserError, match=r"the image .*x\.png does not decode .*: replace it"):
        decode(slice(0, 1), np.empty((1, *SHAPE, 3), np.uint8))


def test_a_name_of_any_bytes_is_printable_in_a_message(tmp_path):
    names = {
        b"img\xe9.JPEG": r"img\xe9.JPEG",
        "é\u202ex.png".encode(): r"é\u202ex.png",
        b"a\nb\x1b[31m.png": r"a\nb\x1b[31m.png",
    }
    for raw, text in names.items():
        path = tmp_path / os.fsdecode(raw)
        path.write_bytes(b"no image")
        assert shown(path) == f"{tmp_path}/{text}"
        rows = np.zeros(1, np.int64)
        decode = FolderImages(tmp_path, [path.name]).decoder(rows, rows, whole)
        with pytest.raises(UserError) as caught:
            decode(slice(0, 1), np.empty((1, *SHAPE, 3), np.uint8))
        assert f"the image {tmp_path}/{text} does not decode" in str(caught.value)
        str(caught.value).encode()
