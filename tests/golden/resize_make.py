"""Make resize_expected.txt: CRC-32 of what Pillow and torchvision give for generated images.

    python resize_make.py       (in this folder; Pillow 13.0.0, torchvision 0.28.0)

Lines:  crop SEED W H X Y BOX_W BOX_H OUT_W OUT_H FILTER FLIP CRC
        eval SEED W H SIZE MODE FILTER CRC      (MODE 0 shortest side + centre crop, 1 squash)
FILTER 0 bicubic, 1 bilinear. The image: s = s * 1664525 + 1013904223 mod 2^32 from s = SEED; a
byte is s >> 24, and for odd seeds 255 or 0 by its highest bit.
"""
import random
import zlib

import numpy as np
import PIL
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

FILTERS = [Image.BICUBIC, Image.BILINEAR]
MODES = [InterpolationMode.BICUBIC, InterpolationMode.BILINEAR]
rng = random.Random(99)


def make(seed, width, height):
    out, s = bytearray(), seed
    for _ in range(width * height * 3):
        s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((255 if s >> 31 else 0) if seed % 2 else s >> 24)
    return Image.fromarray(np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3))


def crop_line(width, height, box, out, kind, flip):
    seed = rng.randrange(1 << 20)
    x, y, w, h = box
    image = make(seed, width, height).crop((x, y, x + w, y + h)).resize(out, FILTERS[kind])
    if flip:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    crc = zlib.crc32(image.tobytes())
    return f"crop {seed} {width} {height} {x} {y} {w} {h} {out[0]} {out[1]} {kind} {flip} {crc}\n"


def eval_line(width, height, size, mode, kind):
    seed = rng.randrange(1 << 20)
    image = make(seed, width, height)
    if mode == 1:
        image = F.resize(image, [size, size], MODES[kind])
    else:
        image = F.center_crop(F.resize(image, size, MODES[kind]), [size, size])
    return f"eval {seed} {width} {height} {size} {mode} {kind} {zlib.crc32(image.tobytes())}\n"


if (PIL.__version__, torchvision.__version__.split("+")[0]) != ("13.0.0", "0.28.0"):
    raise SystemExit(f"other versions: Pillow {PIL.__version__}, torchvision {torchvision.__version__}")
with open("resize_expected.txt", "w") as file:
    for kind in (0, 1):
        for flip in (0, 1):
            for out in [(28, 28), (1, 1), (64, 64), (3, 50), (50, 3), (224, 224)]:
                for size in [(1, 1), (28, 28), (1, 37), (37, 1), (50, 41), (97, 33), (30, 131)]:
                    file.write(crop_line(*size, (0, 0, *size), out, kind, flip))
    for _ in range(60):
        width, height = rng.randint(2, 90), rng.randint(2, 90)
        x, y = rng.randrange(width), rng.randrange(height)
        box = (x, y, rng.randint(1, width - x), rng.randint(1, height - y))
        out = (rng.choice([box[2], rng.randint(1, 70)]), rng.choice([box[3], rng.randint(1, 70)]))
        file.write(crop_line(width, height, box, out, rng.randint(0, 1), rng.randint(0, 1)))
    file.write(crop_line(1, 5000, (0, 0, 1, 5000), (28, 28), 0, 1))
    file.write(crop_line(5000, 1, (0, 0, 5000, 1), (28, 28), 0, 1))
    for size in [(28, 28), (37, 28), (28, 37), (101, 100), (100, 101), (64, 48), (31, 90), (7, 5), (3, 70), (70, 3), (1, 1), (1, 50)]:
        for side in (28, 32, 7):
            file.write(eval_line(*size, side, 0, rng.randint(0, 1)))
        file.write(eval_line(*size, 28, 1, 0))
