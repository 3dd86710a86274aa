/* model/safetensors.h: the reference package's file, every rule of the format, every damaged byte.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "model/safetensors.h"

#define REFERENCE TEST_SOURCE_DIR "/tests/golden/safetensors_reference.safetensors"
#define EMPTY     TEST_SOURCE_DIR "/tests/golden/safetensors_empty.safetensors"
#define SCRATCH   TEST_BINARY_DIR "/test_safetensors.safetensors"

static void must(dip_status status)
{
    if (status != DIP_OK) fail_msg("%s: %s", dip_status_text(status), dip_error());
}

static const dip_tensor *find(const dip_safetensors *file, const char *name)
{
    const dip_tensor *tensor = dip_safetensors_find(file, name);
    if (!tensor) fail_msg("no tensor %s", name);
    return tensor;
}

static void expect_floats(const dip_safetensors *file, const char *name, const float *expected,
                          size_t n)
{
    float values[8] = {0};
    must(dip_tensor_to_float(values, find(file, name)));
    for (size_t i = 0; i < n; i++)
        if (values[i] != expected[i])
            fail_msg("%s[%zu] is %.9g, not %.9g", name, i, values[i], expected[i]);
}

static void reads_the_reference_file(void **state)
{
    (void)state;
    dip_safetensors *file;
    must(dip_safetensors_open(&file, REFERENCE));
    size_t n;
    const dip_tensor *tensors = dip_safetensors_tensors(file, &n);
    assert_int_equal(n, 10);
    for (size_t i = 1; i < n; i++) assert_true(strcmp(tensors[i - 1].name, tensors[i].name) < 0);
    assert_null(dip_safetensors_find(file, "weigh"));
    assert_null(dip_safetensors_find(file, "__metadata__"));

    const dip_tensor *weight = find(file, "weight");
    assert_int_equal(weight->dtype, DIP_ST_F32);
    assert_int_equal(weight->n_dims, 2);
    assert_int_equal(weight->shape[0], 2);
    assert_int_equal(weight->shape[1], 3);
    expect_floats(file, "weight", (float[]){0, 1, 2, 3, 4, 5}, 6);
    expect_floats(file, "brain", (float[]){1.5f, -2.0f, 0.25f}, 3);
    /* 6e-8 in half precision is its smallest number, 2^-24 */
    expect_floats(file, "half", (float[]){1, -0.5f, 0x1p-24f, 65504}, 4);
    expect_floats(file, "double", (float[]){3.14159265358979f}, 1);
    expect_floats(file, "scalar", (float[]){2.6592600369f}, 1);
    assert_int_equal(find(file, "scalar")->n_dims, 0);
    assert_int_equal(find(file, "none")->n_bytes, 0);
    expect_floats(file, "none", NULL, 0);

    int64_t steps[2];
    memcpy(steps, find(file, "steps")->data, sizeof steps);
    assert_int_equal(steps[0], 7);
    assert_int_equal(steps[1], -9);
    assert_memory_equal(find(file, "bytes")->data, "abc", 3);
    assert_int_equal(find(file, "flags")->dtype, DIP_ST_OTHER);
    assert_int_equal(find(file, "n\xc3\xa4me \"q\"\n")->dtype, DIP_ST_I32);
    float values[8];
    assert_int_equal(dip_tensor_to_float(values, find(file, "steps")), DIP_FORMAT);
    dip_safetensors_close(file);

    must(dip_safetensors_open(&file, EMPTY));
    dip_safetensors_tensors(file, &n);
    assert_int_equal(n, 0);
    dip_safetensors_close(file);
}

/* The tensors of the reference file, but for the one of a type that is not written. */
static size_t reference_tensors(dip_tensor *out, const dip_safetensors *file)
{
    size_t n, n_out = 0;
    const dip_tensor *tensors = dip_safetensors_tensors(file, &n);
    for (size_t i = 0; i < n; i++)
        if (tensors[i].dtype != DIP_ST_OTHER) out[n_out++] = tensors[i];
    return n_out;
}

static void writes_as_the_reference_writer(void **state)
{
    (void)state;
    dip_safetensors *file;
    must(dip_safetensors_open(&file, REFERENCE));
    dip_tensor tensors[16];
    size_t n = reference_tensors(tensors, file);
    must(dip_safetensors_write(SCRATCH, tensors, n));

    char *ours, *theirs;
    size_t n_ours, n_theirs;
    must(dip_file_read(&ours, &n_ours, SCRATCH, 1 << 20));
    must(dip_file_read(&theirs, &n_theirs, REFERENCE, 1 << 20));
    /* Headers agree from the first tensor to the last but "flags"; so do the data. */
    const char *first = "\"steps\":";
    char *a = strstr(ours + 8, first), *b = strstr(theirs + 8, first);
    size_t length = (size_t)(strstr(b, ",\"flags\"") - b);
    assert_memory_equal(a, b, length);
    assert_int_equal(a[length], '}');
    uint64_t n_header;
    memcpy(&n_header, ours, 8);
    assert_int_equal(n_header % 8, 0);
    size_t n_data = n_ours - 8 - (size_t)n_header;
    assert_int_equal(n_data, 73);
    assert_memory_equal(ours + 8 + n_header, theirs + n_theirs - 74, 73);
    assert_non_null(strstr(ours + 8, "\"format\":\"pt\""));
    free(ours);
    free(theirs);

    dip_safetensors *again;
    must(dip_safetensors_open(&again, SCRATCH));
    for (size_t i = 0; i < n; i++) {
        const dip_tensor *tensor = find(again, tensors[i].name);
        assert_int_equal(tensor->dtype, tensors[i].dtype);
        assert_int_equal(tensor->n_bytes, tensors[i].n_bytes);
        assert_memory_equal(tensor->data, tensors[i].data, tensor->n_bytes);
    }
    dip_safetensors_close(again);
    dip_safetensors_close(file);
}

static void writer_refuses(void **state)
{
    (void)state;
    float data[6] = {0};
    remove(SCRATCH);
    dip_tensor good = {"a", DIP_ST_F32, 2, {2, 3}, data, sizeof data};
    dip_tensor pair[2] = {good, good};
    pair[1].dtype = DIP_ST_I32;
    assert_int_equal(dip_safetensors_write(SCRATCH, pair, 2), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "two tensors are called 'a'"));
    for (int fault = 0; fault < 5; fault++) {
        dip_tensor bad = good;
        if (fault == 0) bad.n_bytes--;
        if (fault == 1) bad.name = "__metadata__";
        if (fault == 2) bad.name = "\xff";
        if (fault == 3) bad.dtype = DIP_ST_OTHER;
        if (fault == 4) bad.shape[0] = INT64_MAX;
        assert_int_equal(dip_safetensors_write(SCRATCH, &bad, 1), DIP_CONFIG);
    }
    assert_int_equal(dip_safetensors_write("/no/such/folder/x", &good, 1), DIP_IO);
    assert_false(dip_path_exists(SCRATCH));
    must(dip_safetensors_write(SCRATCH, NULL, 0));
    dip_safetensors *file;
    must(dip_safetensors_open(&file, SCRATCH));
    dip_safetensors_close(file);
}

/* ---- hand-made files --------------------------------------------------------------------------
 */

/* Not dip_file_write: thousands of files need not reach the disk (as ext4 makes one that replaces
 * an older one do, hence the remove). */
static void write_raw(const void *bytes, size_t n)
{
    remove(SCRATCH);
    FILE *out = fopen(SCRATCH, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

static dip_status open_raw(const void *bytes, size_t n)
{
    write_raw(bytes, n);
    dip_safetensors *file;
    dip_status status = dip_safetensors_open(&file, SCRATCH);
    if (status != DIP_OK) assert_null(file);
    dip_safetensors_close(file);
    return status;
}

static dip_status open_made(const char *header, size_t n_data)
{
    static char bytes[70000];
    uint64_t n = strlen(header);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    return open_raw(bytes, 8 + n + n_data);
}

static void refuse_made(const char *header, size_t n_data, const char *words)
{
    dip_status status = open_made(header, n_data);
    if (status != DIP_FORMAT) fail_msg("%s: %s", header, dip_status_text(status));
    if (!strstr(dip_error(), words)) fail_msg("'%s' does not say '%s'", dip_error(), words);
}

#define A4 "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"

static void rules_of_the_header(void **state)
{
    (void)state;
    must(open_made(A4, 4));
    must(open_made(" \n\t" A4 "   \n", 4)); /* blanks at both ends */
    must(open_made("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}", 4));
    must(open_made("{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                   "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                   "\"e\":{\"dtype\":\"F32\",\"shape\":[9,0],\"data_offsets\":[4,4]}}",
                   8));
    must(open_made("{\"__metadata__\":{},\"a\":{\"dtype\":\"F4\",\"shape\":[3,2],"
                   "\"data_offsets\":[0,3]}}",
                   3));

    refuse_made(A4, 5, "the file at 5");
    refuse_made(A4, 3, "cut short");
    refuse_made("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1,
                "whole number");
    refuse_made("{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F31");
    refuse_made("{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
                "needs 8 bytes");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
                "dimension 0");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", 6,
                "dimension 0");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "shape");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4,
                "data_offsets");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
                "data_offsets");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1e300]}}", 4,
                "data_offsets");
    refuse_made(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
        "overflows");
    refuse_made(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,0]}}", 0,
        "below 2^61");
    refuse_made("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
                1, "more than 8 dimensions");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
                "'x'");
    refuse_made("{\"a\":[]}", 0, "not an object");
    refuse_made("{\"__metadata__\":{\"a\":1}}", 0, "not a string");
    refuse_made("{\"__metadata__\":\"a\"}", 0, "not an object");
    refuse_made("[]", 0, "not a JSON object");
    refuse_made("", 0, "");
    refuse_made(A4 "x", 4, "");
    /* A hole, an overlap, the same name twice. */
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
                12, "behind byte 4");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
                6, "before byte 4");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                "behind byte 0");
    refuse_made("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                8, "twice");
    refuse_made("{\"__metadata__\":{\"writer\":\"diptych\"}}", 0, "checksum");
    refuse_made("{\"__metadata__\":{\"diptych_crc32c\":\"12\"}}", 0, "eight digits");
    refuse_made("{\"__metadata__\":{\"diptych_crc32c\":\"00000000\"}}", 0, "kept the old");
}

static void strangers_are_named(void **state)
{
    (void)state;
    assert_int_equal(open_raw("", 0), DIP_FORMAT);
    assert_int_equal(open_raw("1234567", 7), DIP_FORMAT);
    assert_int_equal(open_raw("version https://git-lfs.github.com/spec/v1\n", 43), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "Git LFS"));
    assert_int_equal(open_raw("PK\3\4 and so on and on", 21), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "PyTorch"));
    assert_int_equal(open_raw("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), DIP_FORMAT);
    dip_safetensors *file;
    assert_int_equal(dip_safetensors_open(&file, "/no/such/file"), DIP_IO);
    assert_int_equal(dip_safetensors_open(&file, TEST_BINARY_DIR), DIP_IO);
    /* A header of 100,000,001 blanks is refused by its size, not read. */
    write_raw("\x01\xe1\xf5\x05\0\0\0\0", 8);
    FILE *out = fopen(SCRATCH, "r+");
    assert_non_null(out);
    assert_int_equal(fseek(out, 8 + 100000001, SEEK_SET), 0);
    fputc(' ', out);
    fclose(out);
    assert_int_equal(dip_safetensors_open(&file, SCRATCH), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "limit is 100000000"));
}

/* With our checksum every damaged byte is found, whichever bit it is; so is every lost byte. */
static void every_damage_is_found(void **state)
{
    (void)state;
    float data[6] = {1, 2, 3, 4, 5, 6};
    dip_tensor tensors[2] = {{"a", DIP_ST_F32, 2, {2, 3}, data, 24},
                             {"b.weight", DIP_ST_F32, 1, {2}, data, 8}};
    must(dip_safetensors_write(SCRATCH, tensors, 2));
    char *bytes;
    size_t n;
    must(dip_file_read(&bytes, &n, SCRATCH, 1 << 20));
    must(open_raw(bytes, n));
    static const unsigned char flips[] = {0x01, 0x02, 0x04, 0x08, 0x10,
                                          0x20, 0x40, 0x80, 0xff, 0x29};
    for (size_t i = 0; i < n; i++) {
        char saved = bytes[i];
        for (size_t f = 0; f < sizeof flips; f++) {
            bytes[i] = (char)(saved ^ flips[f]);
            if (open_raw(bytes, n) != DIP_FORMAT)
                fail_msg("byte %zu of %zu, flip %02x: not found", i, n, flips[f]);
        }
        bytes[i] = saved;
        assert_int_equal(open_raw(bytes, i), DIP_FORMAT);
    }
    free(bytes);
}

/* Without it a damaged byte is refused, or leaves tensors that lie inside the file. */
static void damage_without_a_checksum_is_harmless(void **state)
{
    (void)state;
    char *bytes;
    size_t n;
    must(dip_file_read(&bytes, &n, REFERENCE, 1 << 20));
    for (size_t i = 0; i < n; i++) {
        char saved = bytes[i];
        for (int flip = 1; flip < 256; flip *= 2) {
            bytes[i] = (char)(saved ^ flip);
            write_raw(bytes, n);
            dip_safetensors *file;
            if (dip_safetensors_open(&file, SCRATCH) != DIP_OK) continue;
            size_t n_tensors;
            const dip_tensor *tensors = dip_safetensors_tensors(file, &n_tensors);
            float values[80];
            unsigned sum = 0;
            for (size_t t = 0; t < n_tensors; t++) {
                if (dip_tensor_to_float(values, &tensors[t]) == DIP_OK) continue;
                for (size_t b = 0; b < tensors[t].n_bytes; b++)
                    sum += ((const uint8_t *)tensors[t].data)[b];
            }
            assert_true(sum < 80 * 256);
            dip_safetensors_close(file);
        }
        bytes[i] = saved;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_reference_file),
        cmocka_unit_test(writes_as_the_reference_writer),
        cmocka_unit_test(writer_refuses),
        cmocka_unit_test(rules_of_the_header),
        cmocka_unit_test(strangers_are_named),
        cmocka_unit_test(every_damage_is_found),
        cmocka_unit_test(damage_without_a_checksum_is_harmless),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove(SCRATCH);
    return n_failed;
}
