"""Draws the input pictures under fixtures/images, in every file format that the image goldens need.

The encoded files are committed, so a different encoder version changes nothing until someone runs this again."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

from common import IMAGES


def photo(width, height, seed):
    """Gradients, soft noise and hard shapes: smooth areas, texture and edges, up to the borders."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    r = 40 + 170 * x / width
    g = 200 - 150 * y / height
    b = 128 + 90 * np.sin(x / 17 + seed) * np.cos(y / 23)
    picture = np.stack([r, g, b], -1)
    patch = rng.normal(0, 18, (height // 3 + 1, width // 3 + 1, 3))
    picture[: patch.shape[0], : patch.shape[1]] += patch
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse, draw.rectangle):
        cx, cy = rng.integers(0, width), rng.integers(0, height)
        rx, ry = rng.integers(3, width // 4 + 4), rng.integers(3, height // 4 + 4)
        shape([int(cx - rx), int(cy - ry), int(cx + rx), int(cy + ry)], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw.line([0, 0, width - 1, height - 1], fill=(255, 255, 255))
    draw.line([0, height - 1, width - 1, 0], fill=(0, 0, 0))
    return image


def png16(path, array):
    """A 16-bit PNG (grey for [h, w], RGB for [h, w, 3]); Pillow writes no 16-bit RGB itself."""
    height, width = array.shape[:2]
    colour = 2 if array.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def main():
    IMAGES.mkdir(parents=True, exist_ok=True)
    photo(300, 200, 1).save(IMAGES / "photo-300x200.png", optimize=True)
    photo(97, 211, 2).save(IMAGES / "photo-97x211.png", optimize=True)
    photo(640, 480, 3).save(IMAGES / "photo-640x480.jpg", quality=85, subsampling="4:2:0")

    small = photo(150, 100, 4)
    small.save(IMAGES / "rgb.png", optimize=True)
    alpha = small.copy()
    ramp = np.linspace(0, 255, 150).astype(np.uint8)
    alpha.putalpha(Image.fromarray(np.tile(ramp, (100, 1))))
    alpha.save(IMAGES / "rgba.png", optimize=True)
    alpha.convert("LA").save(IMAGES / "grey-alpha.png", optimize=True)
    palette = small.quantize(64, dither=Image.Dither.NONE)
    palette.save(IMAGES / "palette.png", optimize=True)
    commonest = int(np.bincount(np.asarray(palette).reshape(-1)).argmax())
    palette.save(IMAGES / "palette-transparent.png", transparency=commonest)
    small.convert("L").save(IMAGES / "grey.png", optimize=True)
    small.convert("1").save(IMAGES / "bilevel.png", optimize=True)
    wide = np.asarray(small).astype(np.uint16) * 257
    png16(IMAGES / "rgb-16bit.png", np.clip(wide.astype(np.int64) + 77, 0, 65535))
    png16(IMAGES / "grey-16bit.png", np.asarray(small.convert("L")).astype(np.uint16) * 257)

    small.save(IMAGES / "jpeg-444.jpg", quality=88, subsampling="4:4:4")
    small.save(IMAGES / "jpeg-420.jpg", quality=88, subsampling="4:2:0")
    small.save(IMAGES / "jpeg-progressive.jpg", quality=88, subsampling="4:2:0", progressive=True)
    small.convert("L").save(IMAGES / "jpeg-grey.jpg", quality=88)
    small.convert("CMYK").save(IMAGES / "jpeg-cmyk.jpg", quality=88)
    turned = Image.Exif()
    turned[0x0112] = 6
    small.save(IMAGES / "jpeg-exif6.jpg", quality=88, subsampling="4:4:4", exif=turned)

    small.save(IMAGES / "lossy.webp", quality=80, method=6)
    small.save(IMAGES / "lossless.webp", lossless=True, method=6)
    alpha.save(IMAGES / "alpha.webp", lossless=True, method=6)
    frames = [palette, photo(150, 100, 5).quantize(64)]
    frames[0].save(IMAGES / "animated.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)

    Image.new("RGB", (1, 1), (200, 30, 90)).save(IMAGES / "one-pixel.png")
    photo(8, 500, 6).crop((3, 0, 4, 500)).save(IMAGES / "tall-1x500.png")
    photo(501, 8, 7).crop((0, 3, 501, 4)).save(IMAGES / "wide-501x1.png")
    photo(41, 30, 8).save(IMAGES / "upscale-41x30.png", optimize=True)
    photo(168, 168, 9).save(IMAGES / "square-168.png", optimize=True)
    photo(337, 336, 10).save(IMAGES / "odd-337x336.png", optimize=True)


if __name__ == "__main__":
    main()
