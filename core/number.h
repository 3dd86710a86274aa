/* number.h - numbers as text, strictly and in every locale with a decimal point.
 *
 * The whole text must be the number: no blanks, no "12x", no hexadecimal, no "inf" or "nan". */
#ifndef DIP_CORE_NUMBER_H
#define DIP_CORE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

typedef enum dip_number_result {
    DIP_NUMBER_OK,
    DIP_NUMBER_NOT_A_NUMBER,
    DIP_NUMBER_TOO_LARGE /* beyond int64_t, or beyond the range of double */
} dip_number_result;

dip_number_result dip_number_read_int(int64_t *out, const char *text);
dip_number_result dip_number_read_double(double *out, const char *text);

/* A short decimal that reads back as the same double. */
enum { DIP_NUMBER_TEXT_BYTES = 32 };
void dip_number_write_double(char out[DIP_NUMBER_TEXT_BYTES], double value);

#endif
