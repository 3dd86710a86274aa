/* npy.h - a float matrix as NumPy's own file: version 1.0, byte for byte as numpy.save writes it.
 *
 * Errors:  DIP_IO, DIP_NOMEM. The file appears complete or not at all.                     */
#ifndef DIP_MODEL_NPY_H
#define DIP_MODEL_NPY_H

#include <stddef.h>

#include "core/status.h"

/* values [n_rows][n_columns] -> shape (n_rows, n_columns), '<f4', C order. */
dip_status dip_npy_write(const char *path, const float *values, size_t n_rows, size_t n_columns);

#endif
