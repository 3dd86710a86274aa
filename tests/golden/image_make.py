"""Make image_corpus/ and image_expected.txt: tiny images of every kind the decoder accepts, and
the CRC-32 of the pixels Pillow gives for them.

    python image_make.py        (in this folder; Pillow 13.0.0, cjpeg of libjpeg-turbo 2.1.5)

A line of image_expected.txt: file width height crc32(Image.open(file).convert("RGB").tobytes())
"""
import io
import os
import random
import struct
import subprocess
import zlib

import PIL
from PIL import Image

rng = random.Random(20240607)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack(samples, depth):
    if depth == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    bits = "".join(format(s, f"0{depth}b") for s in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def png(width, height, colour, depth, interlaced, transparent):
    """A PNG of random samples, written by hand: Pillow cannot write most kinds."""
    n = CHANNELS[colour]
    top = (1 << depth) - 1
    palette = bytes(rng.randrange(256) for _ in range(3 << min(depth, 8))) if colour == 3 else b""
    rows = []
    for _ in range(height):  # 16-bit grey is clipped to 255: have both sides of it
        limit = rng.choice([top, min(top, 255)])
        rows.append([rng.randint(0, limit) for _ in range(width * n)])
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        for row in rows[y0::dy]:
            part = [s for x in range(x0, width, dx) for s in row[x * n : (x + 1) * n]]
            raw += b"\0" + pack(part, depth) if part else b""
    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    out += chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"tEXt", b"Comment\0ignored")
    if palette:
        out += chunk(b"PLTE", palette)
    if transparent and colour == 0:
        out += chunk(b"tRNS", struct.pack(">H", rows[0][0]))
    if transparent and colour == 2:
        out += chunk(b"tRNS", struct.pack(">HHH", *rows[0][:3]))
    if transparent and colour == 3:
        out += chunk(b"tRNS", bytes(rng.randrange(256) for _ in range(1 << depth)))
    return out + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pngs():
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            for interlaced in (0, 1):
                transparent = int(interlaced and colour in (0, 2, 3))
                name = f"colour{colour}_depth{depth}" + "_adam7" * interlaced + "_trns" * transparent
                yield name + ".png", png(13, 9, colour, depth, interlaced, transparent)
    yield "one_pixel.png", png(1, 1, 2, 8, 0, 0)
    yield "one_pixel_adam7.png", png(1, 1, 6, 8, 1, 0)
    yield "line.png", png(1, 40, 3, 2, 1, 0)


def scene(width, height):
    """Shapes and noise: what a JPEG has to work for."""
    image = Image.new("RGB", (width, height))
    cx, cy = width / 3, height / 2
    for y in range(height):
        for x in range(width):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (width / 4) ** 2
            colour = (230, 60, 40) if inside else (5 * x % 256, 7 * y % 256, 3 * (x + y) % 256)
            image.putpixel((x, y), tuple(min(255, c + rng.randrange(24)) for c in colour))
    return image


def jpegs():
    image = scene(41, 27)

    def save(picture, **options):
        out = io.BytesIO()
        picture.save(out, "JPEG", **options)
        return out.getvalue()

    for sampling, name in enumerate(["444", "422", "420"]):
        yield f"ycc_{name}.jpg", save(image, quality=85, subsampling=sampling)
        yield f"ycc_{name}_progressive.jpg", save(image, quality=85, subsampling=sampling, progressive=True)
    yield "grey.jpg", save(image.convert("L"), quality=90)
    yield "rgb.jpg", save(image, quality=90, keep_rgb=True)
    yield "one_pixel.jpg", save(image.crop((9, 9, 10, 10)))
    yield "line.jpg", save(image.crop((0, 9, 41, 10)))
    yield "exif_rotated.jpg", save(image, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    yield "exif_broken.jpg", save(image, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    cmyk = save(image.convert("CMYK"), quality=90)
    at = cmyk.index(b"Adobe")
    yield "cmyk.jpg", cmyk
    yield "cmyk_no_adobe.jpg", cmyk[: at - 4] + cmyk[at + 12 :]
    yield "ycck.jpg", cmyk[: at + 11] + b"\x02" + cmyk[at + 12 :]
    ppm = io.BytesIO()
    image.save(ppm, "PPM")
    for name, options in {
        "ycc_440": ["-sample", "1x2"],
        "ycc_411": ["-sample", "4x1"],
        "ycc_410_restart": ["-sample", "4x2", "-restart", "1"],
        "ycc_mixed": ["-sample", "2x2,1x2,2x1"],
        "arithmetic": ["-arithmetic"],
    }.items():
        done = subprocess.run(["cjpeg", "-quality", "85", *options], input=ppm.getvalue(), capture_output=True, check=True)
        yield name + ".jpg", done.stdout


if PIL.__version__ != "13.0.0":
    raise SystemExit(f"made with Pillow 13.0.0, this is {PIL.__version__}")
os.makedirs("image_corpus", exist_ok=True)
with open("image_expected.txt", "w") as expected:
    for name, data in [*pngs(), *jpegs()]:
        with open(os.path.join("image_corpus", name), "wb") as file:
            file.write(data)
        rgb = Image.open(io.BytesIO(data)).convert("RGB")
        expected.write(f"{name} {rgb.width} {rgb.height} {zlib.crc32(rgb.tobytes())}\n")
