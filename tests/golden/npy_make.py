"""Write the npy_*.npy files of this folder with the reference package (made with numpy 2.4.6).

Usage: python npy_make.py
Row i, column j holds i - j / 4, which float32 represents exactly.
"""
import pathlib

import numpy

here = pathlib.Path(__file__).parent
for rows, columns in [(2, 3), (0, 4), (12, 1)]:
    i, j = numpy.mgrid[:rows, :columns]
    numpy.save(here / f"npy_{rows}x{columns}.npy", (i - j / 4).astype(numpy.float32))
