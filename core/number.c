#include "core/number.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

/* "C" is built into the C library: making it cannot fail for want of a file. */
static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

dip_number_result dip_number_read_int(int64_t *out, const char *text)
{
    bool negative = *text == '-';
    if (*text == '-' || *text == '+') text++;
    if (!is_digit(*text)) return DIP_NUMBER_NOT_A_NUMBER;
    int64_t value = 0; /* kept negative: the negative range is the larger one */
    bool too_large = false;
    for (; is_digit(*text); text++) {
        int digit = *text - '0';
        if (value < (INT64_MIN + digit) / 10)
            too_large = true;
        else
            value = value * 10 - digit;
    }
    if (*text != '\0') return DIP_NUMBER_NOT_A_NUMBER;
    if (too_large || (!negative && value == INT64_MIN)) return DIP_NUMBER_TOO_LARGE;
    *out = negative ? value : -value;
    return DIP_NUMBER_OK;
}

dip_number_result dip_number_read_double(double *out, const char *text)
{
    const char *p = text;
    if (*p == '-' || *p == '+') p++;
    bool digits = is_digit(*p);
    while (is_digit(*p)) p++;
    if (*p == '.') {
        p++;
        digits = digits || is_digit(*p);
        while (is_digit(*p)) p++;
    }
    if (!digits) return DIP_NUMBER_NOT_A_NUMBER;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+') p++;
        if (!is_digit(*p)) return DIP_NUMBER_NOT_A_NUMBER;
        while (is_digit(*p)) p++;
    }
    if (*p != '\0') return DIP_NUMBER_NOT_A_NUMBER;
    pthread_once(&c_locale_once, make_c_locale);
    double value = strtod_l(text, NULL, c_locale);
    if (!isfinite(value)) return DIP_NUMBER_TOO_LARGE;
    *out = value;
    return DIP_NUMBER_OK;
}

void dip_number_write_double(char out[DIP_NUMBER_TEXT_BYTES], double value)
{
    pthread_once(&c_locale_once, make_c_locale);
    locale_t callers = uselocale(c_locale); /* of this thread alone */
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(out, DIP_NUMBER_TEXT_BYTES, "%.*g", precision, value);
        if (strtod(out, NULL) == value) break;
    }
    uselocale(callers);
}
