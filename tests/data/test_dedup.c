/* What tells images apart: the digest against OpenSSL's SipHash, the perceptual hash against Pillow
 * and SciPy, and the search for duplicates against looking at every pair. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>

#include "core/rng.h"
#include "data/dedup/dedup.h"
#include "data/image_files.h"
#include "data/image/jpeg_encode.h"

/* Eight bytes, the lowest first. */
static uint64_t read_hex(const char *hex)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        value |= (uint64_t)byte << (8 * i);
    }
    return value;
}

/* openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 SIPHASH (3.0.19) of
 * the bytes 0, 1, 2, ... */
static void digest_is_siphash(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *hex;
    } rows[] = {
        {0, "A3817F04BA25A8E66DF67214C7550293"},  {1, "DA87C1D86B99AF44347659119B22FC45"},
        {7, "A1F1EBBED8DBC153C0B84AA61FF08239"},  {8, "3B62A9BA6258F5610F83E264F31497B4"},
        {15, "5493E99933B0A8117E08EC0F97CFC3D9"}, {16, "6EE2A4CA67B054BBFD3315BF85230577"},
        {63, "5150D1772F50834A503E069A973FBD7C"},
    };
    uint8_t counted[64];
    for (int i = 0; i < 64; i++) counted[i] = (uint8_t)i;
    dip_digest key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dip_digest digest = dip_digest_of(key, counted, rows[i].n);
        assert_int_equal(digest.low, read_hex(rows[i].hex));
        assert_int_equal(digest.high, read_hex(rows[i].hex + 16));
    }
    dip_digest a = dip_digest_text(dip_digest_text((dip_digest){0}, "ab"), "c");
    dip_digest b = dip_digest_text(dip_digest_text((dip_digest){0}, "a"), "bc");
    assert_false(dip_digest_equal(a, b));
}

static dip_phash hash_of(const bytes *file)
{
    dip_decode_options options = dip_decode_defaults();
    options.exif_rotate = true;
    dip_image_decoder *decoder;
    dip_resizer *resizer;
    dip_image image;
    dip_phash hash;
    dip_fault_kind kind;
    assert_int_equal(dip_image_decoder_open_with(&decoder, &options), DIP_OK);
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file->data, file->n), DIP_OK);
    assert_int_equal(dip_phash_of(&hash, resizer, &image), DIP_OK);
    dip_resizer_close(resizer);
    dip_image_decoder_close(decoder);
    return hash;
}

/* Equal to the definition; within 6 bits of imagehash, which shrinks by another filter. */
static void phash_is_the_reference(void **state)
{
    (void)state;
    enum { IMAGEHASH_BITS = 6 };
    char *path = dip_format("%s/tests/golden/phash_expected.txt", TEST_SOURCE_DIR), *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    int n_rows = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char name[64];
        uint64_t defined, imagehash;
        if (sscanf(line, "%63s %" SCNx64 " %" SCNx64, name, &defined, &imagehash) != 3) continue;
        bytes file = read_corpus(name);
        dip_phash hash = hash_of(&file);
        if (hash.bits != defined) fail_msg("%s: %016" PRIx64 ", not %s", name, hash.bits, line);
        assert_in_range(dip_phash_distance(hash.bits, imagehash), 0, IMAGEHASH_BITS);
        free(file.data);
        n_rows++;
    }
    assert_int_equal(n_rows, 11);
    free(text);
    free(path);
}

static bool same_colour(const dip_phash *a, const dip_phash *b)
{
    for (int c = 0; c < 3; c++)
        if (abs(a->mean[c] - b->mean[c]) > 16) return false;
    return true;
}

/* Hashes in clusters, so that distances around the limit are common. */
static void near_search_misses_nothing(void **state)
{
    (void)state;
    enum { N = 3000, N_CENTRES = 40 };
    static dip_dedup_sign signs[N];
    dip_rng rng;
    dip_rng_init(&rng, 7, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    uint64_t centres[N_CENTRES];
    for (int i = 0; i < N_CENTRES; i++) centres[i] = dip_rng_u64(&rng);
    for (int i = 0; i < N; i++) {
        signs[i].phash.bits = centres[dip_rng_below(&rng, N_CENTRES)];
        for (int flips = (int)dip_rng_below(&rng, 24); flips > 0; flips--)
            signs[i].phash.bits ^= (uint64_t)1 << dip_rng_below(&rng, 64);
        for (int c = 0; c < 3; c++) signs[i].phash.mean[c] = (uint8_t)dip_rng_below(&rng, 40);
    }
    for (int limit = 0; limit <= DIP_DEDUP_MAX_DISTANCE; limit++) {
        dip_dedup *dedup;
        assert_int_equal(dip_dedup_open(&dedup, DIP_DEDUP_NEAR, limit), DIP_OK);
        int n_found = 0, n_kept = 0;
        static int kept[N];
        for (int i = 0; i < N; i++) {
            int first = -1, distance = 0;
            for (int k = 0; k < n_kept && first < 0; k++) {
                const dip_phash *other = &signs[kept[k]].phash;
                int d = dip_phash_distance(other->bits, signs[i].phash.bits);
                if (d > limit || !same_colour(other, &signs[i].phash)) continue;
                first = kept[k];
                distance = d;
            }
            int got_distance;
            assert_int_equal(dip_dedup_find(dedup, &signs[i], &got_distance), first);
            if (first >= 0) {
                assert_int_equal(got_distance, distance);
                n_found++;
            } else {
                assert_int_equal(dip_dedup_keep(dedup, &signs[i], i), DIP_OK);
                kept[n_kept++] = i;
            }
        }
        assert_true(limit < 4 || n_found > 10); /* or nothing was tried */
        dip_dedup_close(dedup);
    }
    dip_dedup *dedup;
    assert_int_equal(dip_dedup_open(&dedup, DIP_DEDUP_NEAR, DIP_DEDUP_MAX_DISTANCE + 1),
                     DIP_CONFIG);
    assert_int_equal(dip_dedup_open(&dedup, DIP_DEDUP_NEAR, -1), DIP_CONFIG);
}

/* Numbers may come in any order: a run that goes on has kept later ones already. */
static void the_smallest_number_is_named(void **state)
{
    (void)state;
    for (int kind = DIP_DEDUP_EXACT; kind <= DIP_DEDUP_NEAR; kind++) {
        dip_dedup *dedup;
        dip_dedup_sign sign = {.digest = {1, 2}, .phash = {.bits = 99}};
        int distance;
        assert_int_equal(dip_dedup_open(&dedup, (dip_dedup_kind)kind, 0), DIP_OK);
        assert_int_equal(dip_dedup_find(dedup, &sign, &distance), -1);
        assert_int_equal(dip_dedup_keep(dedup, &sign, 50), DIP_OK);
        assert_int_equal(dip_dedup_keep(dedup, &sign, 7), DIP_OK);
        assert_int_equal(dip_dedup_keep(dedup, &sign, 60), DIP_OK);
        assert_int_equal(dip_dedup_find(dedup, &sign, &distance), 7);
        dip_dedup_close(dedup);
    }
    dip_dedup_close(NULL);
}

static void exact_search_survives_growth(void **state)
{
    (void)state;
    enum { N = 20000 };
    dip_dedup *dedup;
    int distance;
    assert_int_equal(dip_dedup_open(&dedup, DIP_DEDUP_EXACT, 0), DIP_OK);
    for (int64_t i = 0; i < N; i++) {
        dip_dedup_sign sign = {.digest = {(uint64_t)i % 16, (uint64_t)i}}; /* crowded slots */
        assert_int_equal(dip_dedup_find(dedup, &sign, &distance), -1);
        assert_int_equal(dip_dedup_keep(dedup, &sign, i), DIP_OK);
    }
    for (int64_t i = 0; i < N; i++) {
        dip_dedup_sign sign = {.digest = {(uint64_t)i % 16, (uint64_t)i}};
        assert_int_equal(dip_dedup_find(dedup, &sign, &distance), i);
    }
    dip_dedup_close(dedup);
}

/* A JPEG of the pixels is nearly the pixels, its hash nearly theirs, and quality orders size. */
static void encoded_pictures_stay_alike(void **state)
{
    (void)state;
    bytes file = read_corpus("ycc_444.jpg"), again[2];
    dip_image_decoder *decoder = open_decoder(1 << 24);
    dip_image image;
    dip_fault_kind kind;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n), DIP_OK);
    static const int qualities[] = {95, 30};
    for (int i = 0; i < 2; i++)
        assert_int_equal(dip_jpeg_encode(&again[i].data, &again[i].n, image.rgb, image.width,
                                         image.height, qualities[i]),
                         DIP_OK);
    assert_true(again[1].n < again[0].n);
    dip_phash original = hash_of(&file);
    for (int i = 0; i < 2; i++) {
        dip_phash hash = hash_of(&again[i]);
        assert_in_range(dip_phash_distance(hash.bits, original.bits), 0, 4);
        assert_true(same_colour(&hash, &original));
        free(again[i].data);
    }
    uint8_t *out;
    size_t n;
    assert_int_equal(dip_jpeg_encode(&out, &n, image.rgb, 0, 5, 90), DIP_CONFIG);
    assert_int_equal(dip_jpeg_encode(&out, &n, image.rgb, 70000, 1, 90), DIP_CONFIG);
    assert_int_equal(dip_jpeg_encode(&out, &n, image.rgb, 5, 5, 101), DIP_CONFIG);
    assert_null(out);
    dip_image_decoder_close(decoder);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_is_siphash),
        cmocka_unit_test(phash_is_the_reference),
        cmocka_unit_test(near_search_misses_nothing),
        cmocka_unit_test(the_smallest_number_is_named),
        cmocka_unit_test(exact_search_survives_growth),
        cmocka_unit_test(encoded_pictures_stay_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
