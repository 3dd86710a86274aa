"""Make resize_region_expected.txt: CRC-32 of what Pillow gives for parts of pixels.

    python resize_region_make.py       (in this folder; Pillow 13.0.0)

Lines:  SEED W H X Y REGION_W REGION_H OUT_W OUT_H FILTER FLIP CRC
X to REGION_H are in eighths of a pixel. With `cover` the smallest box of whole pixels around the
region: image.crop(cover).resize(out, filter, box=the region on that crop). FILTER and the image as
in resize_make.py, but bytes are s >> 24 for every seed.
"""
import random
import zlib

import PIL
from PIL import Image

FILTERS = [Image.BICUBIC, Image.BILINEAR]
rng = random.Random(5)


def make(seed, width, height):
    out, s = bytearray(), seed
    for _ in range(width * height * 3):
        s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(s >> 24)
    return Image.frombytes("RGB", (width, height), bytes(out))


if PIL.__version__ != "13.0.0":
    raise SystemExit(f"made with Pillow 13.0.0, this is {PIL.__version__}")
with open("resize_region_expected.txt", "w") as file:
    for i in range(120):
        width, height = rng.randint(1, 70), rng.randint(1, 70)
        if i % 10 == 0:
            width, height = 300, 260
        step = rng.choice([1, 2, 4, 8])
        x, y = rng.randrange(0, 8 * width, step), rng.randrange(0, 8 * height, step)
        w, h = rng.randrange(step, 8 * width - x + 1, step), rng.randrange(step, 8 * height - y + 1, step)
        if i % 10 == 0:
            x, y, w, h = x % 90, y % 90, 8 * width - 90, 8 * height - 90
        out = (rng.randint(1, 60), rng.randint(1, 60))
        if i % 4 == 0:
            out = (max(1, w // 8), max(1, h // 8))
        kind, flip, seed = rng.randint(0, 1), rng.randint(0, 1), rng.randrange(1 << 20)
        left, top, right, bottom = x // 8, y // 8, -(-(x + w) // 8), -(-(y + h) // 8)
        part = make(seed, width, height).crop((left, top, right, bottom))
        box = (x / 8 - left, y / 8 - top, (x + w) / 8 - left, (y + h) / 8 - top)
        done = part.resize(out, FILTERS[kind], box=box)
        if flip:
            done = done.transpose(Image.FLIP_LEFT_RIGHT)
        file.write(f"{seed} {width} {height} {x} {y} {w} {h} {out[0]} {out[1]} {kind} {flip} {zlib.crc32(done.tobytes())}\n")
