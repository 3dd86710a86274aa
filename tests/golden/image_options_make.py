"""Make the WebP and turned files of image_corpus/ and image_options_expected.txt: what Pillow gives
for EXIF orientations, alpha over a colour, and WebP.

    python image_options_make.py     (in this folder, after image_make.py; Pillow 13.0.0)

Lines:  plain FILE W H CRC          Image.open(file).convert("RGB")
        turned FILE W H CRC         ImageOps.exif_transpose(...).convert("RGB")
        over R G B FILE W H CRC     pasted over that colour by its own alpha
CRC-32 of tobytes().
"""
import io
import os
import random
import struct
import zlib

import PIL
from PIL import Image, ImageOps

rng = random.Random(7)
KEYED = ["colour0_depth8_adam7_trns", "colour2_depth8_adam7_trns", "colour3_depth1_adam7_trns",
         "colour3_depth2_adam7_trns", "colour3_depth4_adam7_trns", "colour3_depth8_adam7_trns"]
WITH_ALPHA = ["colour4_depth8", "colour4_depth8_adam7", "colour4_depth16", "colour6_depth8", "colour6_depth8_adam7",
              "colour6_depth16", "colour6_depth16_adam7", "colour2_depth8", "colour3_depth8", "colour0_depth8"]


def scene(width, height, mode):
    image = Image.new(mode, (width, height))
    n = len(mode)
    for y in range(height):
        for x in range(width):
            colour = [7 * x % 256, 9 * y % 256, (x * y + rng.randrange(20)) % 256, (11 * x + 5 * y) % 256]
            image.putpixel((x, y), tuple(colour[:n]))
    return image


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(order, kind, orientation):
    """A directory of three entries; the orientation is a byte (1, ignored by Pillow), short (3) or long (4)."""
    value = {1: struct.pack(order + "BBH", orientation, 0, 0), 3: struct.pack(order + "HH", orientation, 0),
             4: struct.pack(order + "I", orientation)}[kind]
    entries = struct.pack(order + "HHII", 0x0100, 4, 1, 77) + struct.pack(order + "HHI", 0x0112, kind, 1) + value
    entries += struct.pack(order + "HHII", 0x0213, 3, 1, 1)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "I", 8) + struct.pack(order + "H", 3) + entries + bytes(4)


def with_chunk(png, before, name, data):
    at = png.index(before) - 4
    body = name + data
    return png[:at] + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)) + png[at:]


def turned():
    picture = scene(21, 13, "RGB")
    for orientation in range(1, 9):
        order, kind = "<>"[orientation % 2], 4 if orientation in (4, 7) else 3
        exif = b"Exif\0\0" + tiff(order, kind, orientation)
        yield f"turned_{orientation}.jpg", saved(picture, "JPEG", quality=90, subsampling=2, exif=exif)
    exif = b"Exif\0\0" + tiff("<", 1, 6)
    yield "turned_byte.jpg", saved(picture, "JPEG", quality=90, exif=exif)
    png = saved(picture, "PNG")
    yield "turned_6.png", with_chunk(png, b"IDAT", b"eXIf", tiff("<", 3, 6))
    yield "turned_8_late.png", with_chunk(png, b"IEND", b"eXIf", tiff(">", 3, 8))
    yield "turned_5.webp", saved(picture, "WEBP", quality=80, exif=b"Exif\0\0" + tiff(">", 3, 5))
    yield "turned_7.webp", saved(picture, "WEBP", lossless=True, exif=tiff("<", 3, 7))


def webps():
    yield "lossy.webp", saved(scene(41, 27, "RGB"), "WEBP", quality=80)
    yield "lossy_alpha.webp", saved(scene(30, 19, "RGBA"), "WEBP", quality=60)
    yield "lossless.webp", saved(scene(33, 18, "RGB"), "WEBP", lossless=True)
    yield "lossless_alpha.webp", saved(scene(17, 20, "RGBA"), "WEBP", lossless=True, exact=True)
    yield "one_pixel.webp", saved(scene(1, 1, "RGB"), "WEBP", lossless=True)


if PIL.__version__ != "13.0.0":
    raise SystemExit(f"made with Pillow 13.0.0, this is {PIL.__version__}")
os.chdir("image_corpus")
files = {**dict(turned()), **dict(webps())}
frames = [scene(9, 9, "RGB") for _ in range(2)]
files["animated.webp"] = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)
for name, data in files.items():
    with open(name, "wb") as file:
        file.write(data)


def line(words, image):
    return f"{words} {image.width} {image.height} {zlib.crc32(image.tobytes())}\n"


with open("../image_options_expected.txt", "w") as expected:
    for name in files:
        if name.startswith("turned"):
            expected.write(line(f"turned {name}", ImageOps.exif_transpose(Image.open(name)).convert("RGB")))
        if name != "animated.webp":
            expected.write(line(f"plain {name}", Image.open(name).convert("RGB")))
    for name in ["exif_rotated.jpg", "exif_broken.jpg"]:
        expected.write(line(f"turned {name}", ImageOps.exif_transpose(Image.open(name)).convert("RGB")))
    for stem in [name + ".png" for name in KEYED + WITH_ALPHA] + [name for name in files if "alpha" in name]:
        image = Image.open(stem).convert("RGBA")
        for colour in [(255, 255, 255), (0, 0, 0), (124, 116, 104)]:
            below = Image.new("RGB", image.size, colour)
            below.paste(image, mask=image.getchannel("A"))
            expected.write(line("over {} {} {} {}".format(*colour, stem), below))
