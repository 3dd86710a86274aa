/* The worst that small files can ask for: what image.h promises about time and memory. Each file of
 * at most 1 MB is decoded in a process of its own, whose use of both is then known.
 *
 * Both grow with the pixels. So most files are tried with a quarter of the pixel limit, as large as
 * it allows, and may cost a quarter of what is promised; the worst of each format have the full
 * size. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef DIPTYCH_WEBP
#include <webp/encode.h>
#include <webp/mux_types.h>
#endif

#include "image_files.h"
#include "sanitizers.h"

enum { MAX_FILE = 1000000, MAX_MEGABYTES = 256, MAX_MS = 2000 };

typedef enum outcome { DECODED, REFUSED } outcome;

/* The part of the pixel limit and of the promise; and the sides of the largest square image. */
enum { FULL = 1, QUARTER = 4, FULL_SIDE = 5000, SIDE = FULL_SIDE / 2 };

/* A file under construction. */
static void put(bytes *file, const void *data, size_t n)
{
    file->data = realloc(file->data, file->n + n + 1);
    assert_non_null(file->data);
    if (n) memcpy(file->data + file->n, data, n);
    file->n += n;
}

static void put_repeated(bytes *file, int byte, size_t n)
{
    file->data = realloc(file->data, file->n + n + 1);
    assert_non_null(file->data);
    memset(file->data + file->n, byte, n);
    file->n += n;
}

/* As many copies of a part as a file may have, and 200 bytes less. Frees the part. */
static void put_until_full(bytes *file, bytes part)
{
    size_t at = file->n, n_copies = (MAX_FILE - 200 - at) / part.n;
    put_repeated(file, 0, n_copies * part.n);
    for (size_t i = 0; i < n_copies; i++, at += part.n) memcpy(file->data + at, part.data, part.n);
    free(part.data);
}

typedef struct trial {
    int part;       /* FULL or QUARTER */
    bool over;      /* alpha over a colour */
    bytes before;   /* decoded first, if there is one: what does it leave behind? */
    outcome result; /* that is expected */
} trial;

/* Decode, in this process; the exit status says how it went. */
static int decode_for_status(bytes file, const trial *t)
{
    dip_decode_options options = dip_decode_defaults();
    if (t->over) options.alpha_over[0] = options.alpha_over[1] = options.alpha_over[2] = 9;
    options.max_pixels /= t->part;
    options.exif_rotate = true;
    dip_image_decoder *decoder;
    dip_image image;
    dip_fault_kind kind;
    if (dip_image_decoder_open_with(&decoder, &options) != DIP_OK) return 9;
    if (t->before.n > 0 &&
        dip_image_decode(decoder, &image, &kind, t->before.data, t->before.n) != DIP_OK)
        return 9;
    dip_status status = dip_image_decode(decoder, &image, &kind, file.data, file.n);
    dip_image_decoder_close(decoder);
    return status == DIP_OK ? DECODED : status == DIP_FORMAT ? REFUSED : 8;
}

static void check_cost(const char *name, bytes file, trial t)
{
    assert_true(file.n <= MAX_FILE);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(decode_for_status(file, &t));
    int status;
    struct rusage use;
    assert_int_equal(wait4(child, &status, 0, &use), child);
    assert_true(WIFEXITED(status));
    long ms = (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000 +
              (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1000;
    long megabytes = use.ru_maxrss / 1000;
    long max_megabytes = MAX_MEGABYTES / t.part, max_ms = MAX_MS / t.part;
    print_message("%-40s %8zu bytes: %4ld of %3ld MB, %4ld of %4ld ms\n", name, file.n, megabytes,
                  max_megabytes, ms, max_ms);
    if (WEXITSTATUS(status) != (int)t.result)
        fail_msg("%s: outcome %d in place of %d", name, WEXITSTATUS(status), (int)t.result);
#if !UNDER_SANITIZER
    if (megabytes > max_megabytes || ms > max_ms)
        fail_msg("%s: %ld MB and %ld ms; at most %ld and %ld", name, megabytes, ms, max_megabytes,
                 max_ms);
#endif
}

/* The same, and the file is no longer needed. */
static void check_and_free(const char *name, bytes file, int part, outcome result)
{
    check_cost(name, file, (trial){.part = part, .result = result});
    free(file.data);
}

/* An EXIF segment's directory: to be turned by a quarter, which takes memory and time, too. */
static const char TURNED[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
enum { TURNED_BYTES = sizeof TURNED - 1 };

/* JPEG by hand. A marker segment: 0xff, which, length, data. */
static void put_segment(bytes *file, int marker, const void *data, size_t n)
{
    const uint8_t head[4] = {0xff, (uint8_t)marker, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)};
    put(file, head, 4);
    put(file, data, n);
}

/* Frame marker: c1 extended sequential, c2 progressive, ca progressive arithmetic. */
static bytes begin_jpeg(int frame_marker, int width, int height, int n_components, int sampling)
{
    bytes file = {0};
    put(&file, "\xff\xd8", 2);
    uint8_t exif[6 + TURNED_BYTES] = "Exif";
    memcpy(exif + 6, TURNED, TURNED_BYTES);
    put_segment(&file, 0xe1, exif, sizeof exif);
    uint8_t table[65] = {0};
    memset(table + 1, 1, 64);
    put_segment(&file, 0xdb, table, 65);
    uint8_t frame[6 + 12] = {8,
                             (uint8_t)(height >> 8),
                             (uint8_t)height,
                             (uint8_t)(width >> 8),
                             (uint8_t)width,
                             (uint8_t)n_components};
    for (int c = 0; c < n_components; c++) {
        frame[6 + 3 * c] = (uint8_t)(c + 1);
        frame[7 + 3 * c] = (uint8_t)sampling;
    }
    put_segment(&file, frame_marker, frame, 6 + 3 * (size_t)n_components);
    return file;
}

/* One code in a Huffman table: a bit 0 means `symbol`. class_and_number: 0x00 DC, 0x10 AC. */
static void put_one_code(bytes *file, int class_and_number, int symbol)
{
    uint8_t table[18] = {(uint8_t)class_and_number, 1};
    table[17] = (uint8_t)symbol;
    put_segment(file, 0xc4, table, 18);
}

static void begin_scan(bytes *file, int first, int n, int from, int to, int high, int low)
{
    uint8_t scan[12] = {(uint8_t)n};
    for (int c = 0; c < n; c++) scan[1 + 2 * c] = (uint8_t)(first + c + 1);
    scan[1 + 2 * n] = (uint8_t)from;
    scan[2 + 2 * n] = (uint8_t)to;
    scan[3 + 2 * n] = (uint8_t)(high << 4 | low);
    put_segment(file, 0xda, scan, 4 + 2 * (size_t)n);
}

static size_t n_blocks(int width, int height)
{
    return (size_t)((width + 7) / 8) * (size_t)((height + 7) / 8);
}

/* All differences 0, a bit each. */
static void put_dc_scan(bytes *file, int width, int height, int n_components)
{
    put_one_code(file, 0x00, 0);
    begin_scan(file, 0, n_components, 0, 0, 0, 10);
    put_repeated(file, 0, n_blocks(width, height) * (size_t)n_components / 8 + 1);
}

/* Runs of 32,767 blocks without a new coefficient, 15 bits each: 0 and fourteen 1. */
static void put_ac_scan(bytes *file, int width, int height, int component, int band, int high,
                        int low)
{
    static const int bands[4][2] = {{1, 63}, {1, 21}, {22, 42}, {43, 63}};
    put_one_code(file, 0x10, 0xe0);
    begin_scan(file, component, 1, bands[band][0], bands[band][1], high, low);
    size_t n_runs = n_blocks(width, height) / 32767 + 1, n_bits = 0;
    uint8_t byte = 0;
    for (size_t i = 0; i < 15 * n_runs || n_bits % 8 != 0; i++, n_bits++) {
        byte = (uint8_t)(byte << 1 | (i >= 15 * n_runs || i % 15 != 0));
        if (n_bits % 8 != 7) continue;
        put(file, &byte, 1);
        if (byte == 0xff) put(file, "", 1); /* stuffing */
    }
}

/* One coarse scan, then scans that walk over every block and change nothing: a band of a
 * component's coefficients is sent once and refined ten times. There are 34 with whole bands, 100
 * with thirds of them. */
static bytes make_progressive(int width, int height, int n_components, int n_scans)
{
    bytes file = begin_jpeg(0xc2, width, height, n_components, 0x11);
    put_dc_scan(&file, width, height, n_components);
    for (int i = 0; i < n_scans - 1; i++) {
        int part = i / 11, low = 10 - i % 11, high = low == 10 ? 0 : low + 1;
        if (n_scans <= 34)
            put_ac_scan(&file, width, height, part, 0, high, low);
        else
            put_ac_scan(&file, width, height, part / 3, part % 3 + 1, high, low);
    }
    put(&file, "\xff\xd9", 2);
    return file;
}

/* Arithmetic coding goes on with zeros after its last byte, for ever. noise: bytes of it a scan. */
static bytes make_arithmetic(int frame_marker, int width, int height, int n_scans, size_t noise)
{
    bytes file = begin_jpeg(frame_marker, width, height, 3, 0x11);
    bool progressive = frame_marker == 0xca;
    uint32_t random = 1;
    for (int i = 0; i < n_scans; i++) {
        int low = 10 - (i - 1) % 11, high = low == 10 ? 0 : low + 1;
        if (i == 0)
            begin_scan(&file, 0, 3, 0, progressive ? 0 : 63, 0, progressive ? 10 : 0);
        else
            begin_scan(&file, (i - 1) / 11, 1, 1, 63, high, low);
        put_repeated(&file, 0, noise);
        for (size_t k = 0; k < noise; k++) {
            random = random * 1664525u + 1013904223u;
            file.data[file.n - noise + k] = (uint8_t)((random >> 24) % 255); /* 255: a marker */
        }
    }
    put(&file, "\xff\xd9", 2);
    return file;
}

static void progressive_jpegs(void **state)
{
    (void)state;
    check_and_free("progressive, 30 scans", make_progressive(SIDE, SIDE, 3, 30), QUARTER, DECODED);
    check_and_free("progressive, 31 scans", make_progressive(SIDE, SIDE, 3, 31), QUARTER, REFUSED);
    check_and_free("progressive, 30 % of the pixels, 100 scans",
                   make_progressive(1369, 1369, 3, 100), QUARTER, DECODED);
    check_and_free("progressive, 1 pixel wide, 100 scans", make_progressive(1, 65500, 3, 100),
                   QUARTER, DECODED);
    check_and_free("progressive CMYK, 86 % of the pixels", make_progressive(2318, 2318, 4, 34),
                   QUARTER, DECODED);
    check_and_free("progressive CMYK", make_progressive(FULL_SIDE, FULL_SIDE, 4, 2), FULL, REFUSED);
    check_and_free("progressive grey", make_progressive(SIDE, SIDE, 1, 12), QUARTER, DECODED);
}

/* What an image took does not add to what the next one takes: of a large one, all is given back; of
 * the largest whose memory is kept, that goes when a larger one needs its own. */
static void one_after_the_other(void **state)
{
    (void)state;
    enum { KEPT_SIDE = 3340 };
    bytes large = make_arithmetic(0xc9, FULL_SIDE, FULL_SIDE, 1, 0),
          kept = make_arithmetic(0xc9, KEPT_SIDE, KEPT_SIDE, 1, 0),
          file = make_progressive(4637, 4637, 4, 2);
    check_cost("progressive CMYK after a large one", file, (trial){.part = FULL, .before = large});
    check_cost("progressive CMYK after a kept one", file, (trial){.part = FULL, .before = kept});
    free(large.data);
    free(kept.data);
    free(file.data);
}

static void arithmetic_jpegs(void **state)
{
    (void)state;
    check_and_free("arithmetic", make_arithmetic(0xc9, SIDE, SIDE, 1, 0), QUARTER, DECODED);
    check_and_free("arithmetic progressive, 30 scans",
                   make_arithmetic(0xca, FULL_SIDE, FULL_SIDE, 30, 0), FULL, DECODED);
    check_and_free("arithmetic noise", make_arithmetic(0xc9, SIDE, SIDE, 1, 999000), QUARTER,
                   REFUSED);
    check_and_free("arithmetic progressive noise", make_arithmetic(0xca, SIDE, SIDE, 30, 33000),
                   QUARTER, REFUSED);
}

/* Baseline files: the blocks themselves, scans of one component, segments without end. */
static void other_jpegs(void **state)
{
    (void)state;
    bytes file = begin_jpeg(0xc1, SIDE, SIDE, 3, 0x11);
    put_one_code(&file, 0x00, 0);
    put_one_code(&file, 0x10, 0);
    bytes each = {malloc(file.n), file.n};
    memcpy(each.data, file.data, file.n);
    begin_scan(&file, 0, 3, 0, 63, 0, 0);
    put_repeated(&file, 0, n_blocks(SIDE, SIDE) * 3 * 2 / 8 + 1);
    put(&file, "\xff\xd9", 2);
    check_and_free("baseline", file, QUARTER, DECODED);
    for (int c = 0; c < 3; c++) {
        begin_scan(&each, c, 1, 0, 63, 0, 0);
        put_repeated(&each, 0, n_blocks(SIDE, SIDE) * 2 / 8 + 1);
    }
    put(&each, "\xff\xd9", 2);
    check_and_free("a scan a component", each, QUARTER, DECODED);

    file = begin_jpeg(0xc2, 16, 16, 3, 0x11);
    put_dc_scan(&file, 16, 16, 3);
    bytes part = {0};
    put_ac_scan(&part, 16, 16, 0, 0, 0, 0);
    put_until_full(&file, part);
    check_and_free("scans without end", file, QUARTER, REFUSED);

    file = begin_jpeg(0xc1, SIDE, SIDE, 3, 0x11);
    part = (bytes){0};
    put_one_code(&part, 0x10, 0);
    put_until_full(&file, part);
    check_and_free("tables without end", file, QUARTER, REFUSED);
}

typedef struct png_kind {
    const char *name;
    int width, height, depth, type;
    bool interlaced;
    size_t n_bytes; /* of image data, before packing */
    int filter;     /* also every byte of the pixels */
} png_kind;

/* Deflate n bytes, all `byte`. A megabyte is packed once and repeated: after a full flush the next
 * block does not look back. */
static bytes deflate_repeated(int byte, size_t n)
{
    enum { UNIT = 1 << 20, ROOM = 1 << 14 };
    static uint8_t raw[UNIT], packed[ROOM];
    memset(raw, byte, sizeof raw);
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_RLE), Z_OK);
    stream.next_in = raw;
    stream.avail_in = UNIT;
    stream.next_out = packed;
    stream.avail_out = ROOM;
    assert_int_equal(deflate(&stream, Z_FULL_FLUSH), Z_OK);
    assert_true(stream.avail_in == 0 && stream.avail_out > 0);
    const size_t n_unit = ROOM - stream.avail_out;
    const uLong unit_sum = adler32(adler32(0, NULL, 0), raw, UNIT);
    uLong sum = adler32(0, NULL, 0);
    bytes data = {0};
    put(&data, "\x78\x01", 2);
    for (; n >= UNIT; n -= UNIT) {
        put(&data, packed, n_unit);
        sum = adler32_combine(sum, unit_sum, UNIT);
    }
    assert_int_equal(deflateReset(&stream), Z_OK);
    stream.next_in = raw;
    stream.avail_in = (uInt)n;
    stream.next_out = packed;
    stream.avail_out = ROOM;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    put(&data, packed, ROOM - stream.avail_out);
    deflateEnd(&stream);
    uint8_t end[4];
    put_u32(end,
            (uint32_t)adler32_combine(sum, adler32(adler32(0, NULL, 0), raw, (uInt)n), (z_off_t)n));
    put(&data, end, 4);
    return data;
}

static bytes make_png(const png_kind *kind)
{
    bytes file = {0};
    put(&file, "\x89PNG\r\n\x1a\n", 8);
    uint8_t header[13] = {0};
    put_u32(header, (uint32_t)kind->width);
    put_u32(header + 4, (uint32_t)kind->height);
    header[8] = (uint8_t)kind->depth;
    header[9] = (uint8_t)kind->type;
    header[12] = kind->interlaced;
    put_chunk(&file, file.n, 0, "IHDR", header, 13);
    if (kind->type == 3) {
        uint8_t palette[768] = {0};
        put_chunk(&file, file.n, 0, "PLTE", palette, (size_t)3 << kind->depth);
        put_chunk(&file, file.n, 0, "tRNS", palette, (size_t)1 << kind->depth);
    }
    put_chunk(&file, file.n, 0, "eXIf", TURNED, TURNED_BYTES);
    bytes data = deflate_repeated(kind->filter, kind->n_bytes);
    put_chunk(&file, file.n, 0, "IDAT", data.data, data.n);
    free(data.data);
    put_chunk(&file, file.n, 0, "IEND", NULL, 0);
    return file;
}

static void pngs(void **state)
{
    (void)state;
    enum { ALL = 52 << 20 }; /* more than any of them has rows for: the rest is ignored */
    static const png_kind kinds[] = {
        {"PNG of 64 bits, Paeth", SIDE, SIDE, 16, 6, false, ALL, 4},
        {"PNG of 64 bits, average", SIDE, SIDE, 16, 6, false, ALL, 3},
        {"PNG of 64 bits, interlaced", SIDE, SIDE, 16, 6, true, ALL, 4},
        {"PNG of 64 bits, wide", 65535, 95, 16, 6, true, ALL, 4},
        {"PNG of 64 bits, tall", 95, 65535, 16, 6, true, ALL, 4},
        {"PNG of 8 bits, interlaced", SIDE, SIDE, 8, 0, true, 7 << 20, 0},
        {"PNG with palette, interlaced", SIDE, SIDE, 8, 3, true, 7 << 20, 1},
        {"PNG with palette of 1 bit", SIDE, SIDE, 1, 3, true, 1 << 20, 1},
        {"PNG of 1 bit, 1 pixel wide", 1, 65535, 1, 0, true, 1 << 20, 1},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bytes file = make_png(&kinds[i]);
        check_cost(kinds[i].name, file, (trial){.part = QUARTER});
        check_cost(kinds[i].name, file, (trial){.part = QUARTER, .over = true});
        free(file.data);
    }
    png_kind worst = kinds[2];
    worst.width = worst.height = FULL_SIDE;
    worst.n_bytes = 205 << 20;
    bytes file = make_png(&worst);
    check_cost(worst.name, file, (trial){.part = FULL, .over = true});
    free(file.data);
    png_kind little = kinds[2];
    little.n_bytes = 100;
    check_and_free("PNG with almost no data", make_png(&little), QUARTER, REFUSED);
}

/* Text and a profile that would unpack to a gigabyte. */
static void png_texts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *head; /* keyword, packed?, method, language, keyword again */
        size_t n_head;
    } texts[] = {{"zTXt", "bomb\0\0", 6}, {"iCCP", "bomb\0\0", 6}, {"iTXt", "bomb\0\1\0\0\0", 9}};
    const png_kind small = {"", 16, 16, 8, 0, false, 16 * 17, 0};
    bytes text = deflate_repeated(0, 900000000);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        bytes chunk = {0}, file = make_png(&small);
        put(&chunk, texts[i].head, texts[i].n_head);
        put(&chunk, text.data, text.n);
        put_chunk(&file, 33, 0, texts[i].name, chunk.data, chunk.n);
        free(chunk.data);
        check_and_free(texts[i].name, file, QUARTER, DECODED);
    }
    free(text.data);
}

#ifdef DIPTYCH_WEBP
static bytes make_webp(int part, bool lossless, int alpha)
{
    const int width = 16383, height = 1525 / part; /* 25 megapixels, or a part of that */
    WebPConfig config;
    WebPPicture picture;
    WebPMemoryWriter writer;
    assert_true(WebPConfigInit(&config) && WebPPictureInit(&picture));
    config.lossless = lossless;
    config.method = 0;
    config.quality = 0;
    config.exact = 1;
    picture.use_argb = 1;
    picture.width = width;
    picture.height = height;
    assert_true(WebPPictureAlloc(&picture));
    for (int i = 0; i < width * height; i++)
        picture.argb[i] = (uint32_t)alpha << 24 | (uint32_t)(i / 7 % 5);
    WebPMemoryWriterInit(&writer);
    picture.writer = WebPMemoryWrite;
    picture.custom_ptr = &writer;
    assert_true(WebPEncode(&config, &picture));
    WebPPictureFree(&picture);
    /* RIFF, size, WEBP; then VP8X (flags, sides less 1), the image's chunk or chunks, EXIF */
    const uint8_t *inner = writer.mem + 12;
    size_t n_inner = writer.size - 12;
    bytes file = {0};
    put(&file, writer.mem, 12);
    if (memcmp(inner, "VP8X", 4) != 0) {
        uint8_t head[18] = {'V', 'P', '8', 'X', 10};
        head[8] = alpha < 255 ? ALPHA_FLAG : 0;
        for (int i = 0; i < 3; i++) {
            head[12 + i] = (uint8_t)((width - 1) >> 8 * i);
            head[15 + i] = (uint8_t)((height - 1) >> 8 * i);
        }
        put(&file, head, sizeof head);
    }
    put(&file, inner, n_inner);
    file.data[20] |= EXIF_FLAG;
    put(&file, "EXIF", 4);
    const uint8_t n_exif[4] = {TURNED_BYTES};
    put(&file, n_exif, 4);
    put(&file, TURNED, TURNED_BYTES);
    for (int i = 0; i < 4; i++) file.data[4 + i] = (uint8_t)((file.n - 8) >> 8 * i);
    WebPMemoryWriterClear(&writer);
    return file;
}

static void webps(void **state)
{
    (void)state;
    check_and_free("WebP, lossless", make_webp(QUARTER, true, 255), QUARTER, DECODED);
    bytes file = make_webp(QUARTER, true, 100);
    check_cost("WebP, lossless with alpha", file, (trial){.part = QUARTER});
    check_cost("WebP, lossless, alpha over a colour", file, (trial){.part = QUARTER, .over = true});
    free(file.data);
    file = make_webp(QUARTER, false, 100);
    check_cost("WebP, lossy with alpha", file, (trial){.part = QUARTER});
    free(file.data);
    file = make_webp(FULL, false, 100);
    check_cost("WebP, lossy, alpha over a colour", file, (trial){.part = FULL, .over = true});
    free(file.data);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progressive_jpegs),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(arithmetic_jpegs),
        cmocka_unit_test(other_jpegs),
        cmocka_unit_test(pngs),
        cmocka_unit_test(png_texts),
#ifdef DIPTYCH_WEBP
        cmocka_unit_test(webps),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
