"""Make augment_expected.txt: CRC-32 of what Pillow, torchvision and the papers' code give.

    python augment_make.py       (in this folder; Pillow 13.0.0, torchvision 0.28.0)

Lines:  NAME SIZE SEED OTHER_SEED A B C CRC SHARE
Images are [SIZE][SIZE][3] bytes as in resize_make.py. A, B, C are the operation's arguments (0 where it
has fewer), OTHER_SEED the image to mix with, SHARE what cutmix leaves. SIZE 4096, SEED 0 is the image of
all 2^24 colours: pixel i is i & 255, i >> 8 & 255, i >> 16.
"""
import math
import random
import zlib

import numpy as np
import PIL
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

rng = random.Random(4711)
SIZES = [1, 2, 3, 7, 16, 31, 64, 224]


def make(seed, size):
    if size == 4096:
        i = np.arange(1 << 24, dtype=np.uint32)
        return np.stack([i & 255, i >> 8 & 255, i >> 16], 1).astype(np.uint8).reshape(size, size, 3)
    out, s = bytearray(), seed
    for _ in range(size * size * 3):
        s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((255 if s >> 31 else 0) if seed % 2 else s >> 24)
    return np.frombuffer(bytes(out), np.uint8).reshape(size, size, 3)


def erase(pixels, x, y, side):
    """DeVries and Taylor's Cutout, value 0."""
    pixels, n = pixels.copy(), len(pixels)
    y1, y2 = np.clip(y - side // 2, 0, n), np.clip(y + side // 2, 0, n)
    x1, x2 = np.clip(x - side // 2, 0, n), np.clip(x + side // 2, 0, n)
    pixels[y1:y2, x1:x2] = 0
    return pixels


def mixup(a, b, share):
    share = np.float32(share)
    mixed = share * a.astype(np.float32) + (np.float32(1) - share) * b.astype(np.float32)
    return (mixed + np.float32(0.5)).astype(np.uint8)


def cutmix(a, b, share, x, y):
    """rand_bbox of the CutMix paper's code."""
    n = len(a)
    side = int(n * np.sqrt(1.0 - share))
    x1, x2 = np.clip(x - side // 2, 0, n), np.clip(x + side // 2, 0, n)
    y1, y2 = np.clip(y - side // 2, 0, n), np.clip(y + side // 2, 0, n)
    mixed = a.copy()
    mixed[y1:y2, x1:x2] = b[y1:y2, x1:x2]
    return mixed, 1 - (x2 - x1) * (y2 - y1) / (n * n)


def on_image(function):
    return lambda pixels, *args: np.asarray(function(Image.fromarray(pixels), *args))


OPS = {
    "brightness": on_image(lambda i, a, b, c: F.adjust_brightness(i, a)),
    "contrast": on_image(lambda i, a, b, c: F.adjust_contrast(i, a)),
    "saturation": on_image(lambda i, a, b, c: F.adjust_saturation(i, a)),
    "hue": on_image(lambda i, a, b, c: F.adjust_hue(i, a)),
    "grayscale": on_image(lambda i, a, b, c: F.rgb_to_grayscale(i, 3)),
    "solarize": on_image(lambda i, a, b, c: ImageOps.solarize(i, a)),
    "gaussian_blur": on_image(lambda i, a, b, c: i.filter(ImageFilter.GaussianBlur(a))),
    "rotate": on_image(lambda i, a, b, c: i.rotate(a, Image.BILINEAR if c else Image.NEAREST, fillcolor=(b, b, b))),
    "flip": on_image(lambda i, a, b, c: ImageOps.mirror(i)),
    "cutout": erase,
}


def line(name, size, a=0, b=0, c=0, seed=None):
    seed = rng.randrange(1 << 20) if seed is None else seed
    other, share = rng.randrange(1 << 20), 1
    if name == "mixup":
        out = mixup(make(seed, size), make(other, size), a)
    elif name == "cutmix":
        out, share = cutmix(make(seed, size), make(other, size), a, b, c)
    else:
        out = OPS[name](make(seed, size), a, b, c)
    crc = zlib.crc32(np.ascontiguousarray(out).tobytes())
    return f"{name} {size} {seed} {other} {a!r} {b!r} {c!r} {crc} {float(share)!r}\n"


def lines():
    for size in SIZES:
        for name in ("brightness", "contrast", "saturation"):
            for factor in (0.0, 0.3, 0.999, 1.0, 1.4, 20.0, rng.uniform(0.6, 1.4)):
                yield line(name, size, factor)
        for shift in (-0.5, -0.1, 0.0, 0.003, 0.1, 0.5, rng.uniform(-0.5, 0.5)):
            yield line("hue", size, shift)
        yield line("grayscale", size)
        yield line("flip", size)
        for threshold in (0, 1, 128, 255, 256):
            yield line("solarize", size, threshold)
        for sigma in (0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 3.7, 40.0, 1000.0, rng.uniform(0.1, 2)):
            yield line("gaussian_blur", size, sigma)
        for angle in (0.0, 90.0, 180.0, 270.0, -90.0, 360.0, 1e-14, 0.1, -30.0, 45.0, 359.9, rng.uniform(-180, 180)):
            for bilinear in (0, 1):
                yield line("rotate", size, angle, rng.randrange(256), bilinear)
        for _ in range(4):
            x, y = rng.randrange(size), rng.randrange(size)
            yield line("cutout", size, x, y, rng.randint(1, 2 * size))
            yield line("cutmix", size, rng.random(), x, y)
        yield line("cutmix", size, 0.0, size // 2, size // 2)
        yield line("cutmix", size, 1.0, size // 2, size // 2)
        for share in (0.0, 0.5, 1.0, rng.random(), rng.random()):
            yield line("mixup", size, share)
    for shift in (0.1, -0.37, 0.5):
        yield line("hue", 4096, shift, seed=0)
    yield line("saturation", 4096, 0.7, seed=0)
    yield line("saturation", 4096, 1.3, seed=0)
    yield line("grayscale", 4096, seed=0)


if (PIL.__version__, torchvision.__version__.split("+")[0]) != ("13.0.0", "0.28.0"):
    raise SystemExit(f"other versions: Pillow {PIL.__version__}, torchvision {torchvision.__version__}")
with open("augment_expected.txt", "w") as file:
    for entry in lines():
        file.write(entry)
