#include "kernels/cuda/matmul_choices.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

enum {
    MAX_FILE_BYTES = 16 << 20,
    ALGO_BYTES = sizeof(cublasLtMatmulAlgo_t),
    FIELDS_BYTES = 256,                             /* a line's words before the algorithm */
    LINE_BYTES = FIELDS_BYTES + 2 * ALGO_BYTES + 16 /* and the checksum */
};

bool dip_cuda_product_equal(const dip_cuda_product *a, const dip_cuda_product *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->a_fp8 == b->a_fp8 &&
           a->b_fp8 == b->b_fp8 && a->inputs_bf16 == b->inputs_bf16 &&
           a->outputs_bf16 == b->outputs_bf16 && a->transpose_a == b->transpose_a &&
           a->transpose_b == b->transpose_b && a->has_bias == b->has_bias && a->has_c == b->has_c &&
           a->align_a == b->align_a && a->align_b == b->align_b && a->align_c == b->align_c &&
           a->align_d == b->align_d;
}

char *dip_cuda_choices_path(const char *device_name, size_t version)
{
    char name[128];
    size_t n = 0;
    for (; device_name[n] != '\0' && n + 1 < sizeof name; n++)
        name[n] = isalnum((unsigned char)device_name[n]) ? device_name[n] : '_';
    name[n] = '\0';
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/')
        return dip_format("%s/diptych/cublaslt-%s-%zu.txt", cache, name, version);
    if (!home || home[0] != '/') return NULL;
    return dip_format("%s/.cache/diptych/cublaslt-%s-%zu.txt", home, name, version);
}

/* ---- in memory -------------------------------------------------------------------------- */

const dip_cuda_choice *dip_cuda_choices_find(const dip_cuda_choices *choices,
                                             const dip_cuda_product *product)
{
    for (int i = 0; i < choices->n; i++)
        if (dip_cuda_product_equal(&choices->at[i].product, product)) return &choices->at[i];
    return NULL;
}

/* Without marking it as new. */
static dip_status put(dip_cuda_choices *choices, const dip_cuda_choice *choice, bool replace)
{
    const dip_cuda_choice *old = dip_cuda_choices_find(choices, &choice->product);
    if (old) {
        if (replace) choices->at[old - choices->at] = *choice;
        return DIP_OK;
    }
    if (choices->n == choices->capacity) {
        const int capacity = choices->capacity > 0 ? 2 * choices->capacity : 64;
        dip_cuda_choice *at = realloc(choices->at, (size_t)capacity * sizeof *at);
        if (!at) return dip_fail(DIP_NOMEM, "no memory for %d algorithms", capacity);
        choices->at = at;
        choices->capacity = capacity;
    }
    choices->at[choices->n++] = *choice;
    return DIP_OK;
}

dip_status dip_cuda_choices_add(dip_cuda_choices *choices, const dip_cuda_choice *choice)
{
    DIP_TRY(put(choices, choice, true));
    choices->is_new = true;
    return DIP_OK;
}

void dip_cuda_choices_free(dip_cuda_choices *choices)
{
    free(choices->at);
    memset(choices, 0, sizeof *choices);
}

/* ---- lines ------------------------------------------------------------------------------ */

#define FIELDS                                                                                     \
    "v1 m %lld n %lld k %lld in %4[bfp123456e] out %4[bfp1236] op %1[NT]%1[NT] bias %d c %d "      \
    "align %hu %hu %hu %hu ns %lld algo %n"

/* What the inputs are: bf16, fp32, or the exponents of two 8-bit formats. */
static const char *const fp8_inputs[3][3] = {
    [DIP_FP8_E4M3] = {[DIP_FP8_E4M3] = "e4e4", [DIP_FP8_E5M2] = "e4e5"},
    [DIP_FP8_E5M2] = {[DIP_FP8_E4M3] = "e5e4"},
};

const char *dip_cuda_product_inputs(const dip_cuda_product *p)
{
    const char *fp8 = fp8_inputs[p->a_fp8][p->b_fp8];
    return fp8 ? fp8 : p->inputs_bf16 ? "bf16" : "fp32";
}

static void read_inputs(dip_cuda_product *p, const char *name)
{
    p->inputs_bf16 = strcmp(name, "bf16") == 0;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            if (fp8_inputs[a][b] && strcmp(name, fp8_inputs[a][b]) == 0) {
                p->a_fp8 = (dip_fp8_format)a;
                p->b_fp8 = (dip_fp8_format)b;
            }
}

static void write_line(char out[LINE_BYTES], const dip_cuda_choice *choice)
{
    const dip_cuda_product *p = &choice->product;
    unsigned char bytes[ALGO_BYTES];
    memcpy(bytes, &choice->algo, sizeof bytes);
    int used =
        snprintf(out, FIELDS_BYTES,
                 "v1 m %lld n %lld k %lld in %s out %s op %c%c bias %d c %d align %u %u %u "
                 "%u ns %lld algo ",
                 (long long)p->m, (long long)p->n, (long long)p->k, dip_cuda_product_inputs(p),
                 p->outputs_bf16 ? "bf16" : "fp32", p->transpose_a ? 'T' : 'N',
                 p->transpose_b ? 'T' : 'N', p->has_bias, p->has_c, p->align_a, p->align_b,
                 p->align_c, p->align_d, (long long)choice->nanoseconds);
    for (int i = 0; i < ALGO_BYTES; i++) used += sprintf(out + used, "%02x", bytes[i]);
    sprintf(out + used, " %08x\n", dip_crc32c(0, out, (size_t)used));
}

/* One line without its end; false if it is not a whole one of ours. */
static bool read_line(dip_cuda_choice *out, const char *line)
{
    const size_t n = strlen(line);
    if (n < 10 || n + 2 > LINE_BYTES || line[n - 9] != ' ') return false;
    char *end;
    const unsigned long sum = strtoul(line + n - 8, &end, 16);
    if (*end != '\0' || (uint32_t)sum != dip_crc32c(0, line, n - 9)) return false;

    /* Whole, so this program wrote it; perhaps another version of it. */
    char in[5], of[5], a[2], b[2];
    int bias, c, used = 0;
    long long sizes[3], ns;
    unsigned short align[4];
    sscanf(line, FIELDS, &sizes[0], &sizes[1], &sizes[2], in, of, a, b, &bias, &c, &align[0],
           &align[1], &align[2], &align[3], &ns, &used);
    if (used == 0 || n - 9 - (size_t)used != 2 * ALGO_BYTES) return false;
    unsigned char bytes[ALGO_BYTES];
    for (int i = 0; i < ALGO_BYTES; i++) {
        unsigned value;
        if (sscanf(line + used + 2 * i, "%2x", &value) != 1) return false;
        bytes[i] = (unsigned char)value;
    }
    *out = (dip_cuda_choice){
        .product = {.m = sizes[0],
                    .n = sizes[1],
                    .k = sizes[2],
                    .outputs_bf16 = strcmp(of, "bf16") == 0,
                    .transpose_a = a[0] == 'T',
                    .transpose_b = b[0] == 'T',
                    .has_bias = bias != 0,
                    .has_c = c != 0,
                    .align_a = align[0],
                    .align_b = align[1],
                    .align_c = align[2],
                    .align_d = align[3]},
        .nanoseconds = ns,
    };
    read_inputs(&out->product, in);
    memcpy(&out->algo, bytes, sizeof bytes);
    return true;
}

/* ---- the file --------------------------------------------------------------------------- */

static dip_status read_file(dip_cuda_choices *choices, const char *path, bool replace)
{
    char *text = NULL;
    size_t n;
    if (!dip_path_exists(path) || dip_file_read(&text, &n, path, MAX_FILE_BYTES) != DIP_OK)
        return DIP_OK;
    dip_status status = DIP_OK;
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\0') text[i] = '?'; /* of a damaged line; the lines after it count */
    char *rest = text;
    for (char *line; status == DIP_OK && (line = strsep(&rest, "\n"));) {
        dip_cuda_choice choice;
        if (read_line(&choice, line)) status = put(choices, &choice, replace);
    }
    free(text);
    return status;
}

dip_status dip_cuda_choices_read(dip_cuda_choices *choices, const char *path)
{
    return read_file(choices, path, true);
}

static dip_status make_folder(const char *path)
{
    char *folder = dip_format("%s", path);
    if (!folder) return dip_fail(DIP_NOMEM, "no memory for the path %s", path);
    *strrchr(folder, '/') = '\0';
    dip_status status = dip_make_dirs(folder);
    free(folder);
    return status;
}

dip_status dip_cuda_choices_write(dip_cuda_choices *choices, const char *path)
{
    if (!choices->is_new) return DIP_OK;
    DIP_TRY(make_folder(path));
    DIP_TRY(read_file(choices, path, false)); /* what others found meanwhile */
    char *text = malloc((size_t)choices->n * LINE_BYTES + 1), *end = text;
    if (!text) return dip_fail(DIP_NOMEM, "no memory for %d algorithms", choices->n);
    for (int i = 0; i < choices->n; i++) {
        write_line(end, &choices->at[i]);
        end += strlen(end);
    }
    dip_status status = dip_file_write(path, text, (size_t)(end - text));
    free(text);
    if (status == DIP_OK) choices->is_new = false;
    return status;
}
