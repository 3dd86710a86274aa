"""Make phash_expected.txt: perceptual hashes of the pictures in image_corpus.

    python phash_make.py > phash_expected.txt

Two hashes a picture, row by row, highest frequency last, as 16 hexadecimal digits whose lowest bit
is the mean: the definition in data/dedup/phash.h computed with Pillow and SciPy, and imagehash.phash,
which shrinks by another filter and so may differ in a few bits.
"""
import pathlib
import sys

import imagehash
import numpy
import PIL
import scipy
import scipy.fftpack
from PIL import Image, ImageOps

NAMES = ["ycc_420.jpg", "ycc_444_progressive.jpg", "grey.jpg", "cmyk.jpg", "rgb.jpg",
         "turned_6.jpg", "colour2_depth8.png", "colour6_depth8.png", "colour0_depth4.png",
         "colour3_depth8_adam7_trns.png", "line.png"]


def to_hex(bits):
    return f"{sum(int(b) << i for i, b in enumerate(bits.flatten())):016x}"


def by_definition(image):
    small = image.resize((32, 32), Image.BICUBIC).convert("L")
    pixels = numpy.asarray(small, dtype=numpy.float64)
    low = scipy.fftpack.dct(scipy.fftpack.dct(pixels, axis=0), axis=1)[:8, :8]
    return to_hex(low > numpy.median(low))


def main():
    corpus = pathlib.Path(__file__).parent / "image_corpus"
    print(f"# phash_make.py: Pillow {PIL.__version__}, SciPy {scipy.__version__}, "
          f"imagehash {imagehash.__version__}")
    for name in NAMES:
        image = ImageOps.exif_transpose(Image.open(corpus / name)).convert("RGB")
        print(name, by_definition(image), to_hex(imagehash.phash(image).hash))


sys.exit(main())
