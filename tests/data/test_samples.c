/* Grouping of members into samples: what makes one, what does not, and that it is said. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/samples.h"
#include "data/tar_build.h"

static const char *folder;
static tar_build tar;
static dip_samples *samples;
static dip_faults *faults;

static void start(void)
{
    tar.n = 0;
}

static char *finish(const char *name)
{
    tar_end(&tar);
    return put_file(folder, name, tar.bytes, tar.n);
}

/* Index files (freed here); the keys that were found, each followed by a blank. */
static const char *found(char **paths, size_t n_paths, int needs, const char *json_key)
{
    static char keys[4096];
    dip_string_list shards = {.items = paths, .n_items = n_paths};
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    dip_status status = dip_samples_open(&samples, &shards, needs, json_key, faults);
    for (size_t i = 0; i < n_paths; i++) free(paths[i]);
    keys[0] = '\0';
    if (status != DIP_OK) {
        assert_int_equal(status, DIP_CONFIG);
        assert_null(samples);
        return keys;
    }
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        strcat(keys, dip_samples_get(samples, i).key);
        strcat(keys, " ");
    }
    return keys;
}

static void done(void)
{
    dip_samples_close(samples);
    dip_faults_close(faults);
    samples = NULL;
}

static int count(dip_fault_kind kind)
{
    return (int)dip_faults_count(faults, kind);
}

enum { PAIR = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION };

static void a_sample_is_read_back(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "d/k.JPG", "image");
    tar_member(&tar, "d/k.json", "{}");
    tar_member(&tar, "d/k.Txt", "caption");
    tar_member(&tar, "d/k.cls", " 7\n");
    tar_member(&tar, "d/k.other", "unknown members do no harm");
    tar_member(&tar, "README.md", "nor do these");
    char *path = finish("one.tar");
    assert_string_equal(found(&path, 1, PAIR | DIP_NEEDS_LABEL, NULL), "d/k ");
    dip_sample s = dip_samples_get(samples, 0);
    assert_int_equal(s.image_bytes, 5);
    assert_memory_equal(s.image, "image", 5);
    assert_int_equal(s.caption_bytes, 7);
    assert_memory_equal(s.caption, "caption", 7);
    assert_int_equal(s.label, 7);
    char where[256];
    assert_non_null(strstr(dip_sample_where(&s, where, sizeof where), "one.tar: d/k"));
    assert_int_equal(dip_faults_total(faults), 0);
    done();
}

static void what_is_incomplete_is_named(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
    tar_member(&tar, "no-text.jpg", "1");
    tar_member(&tar, "no-image.txt", "t");
    tar_member(&tar, "b.txt", "b");
    tar_member(&tar, "b.webp", "1");
    tar_member(&tar, "x.jpg", "1"); /* interleaved: x and y are both broken */
    tar_member(&tar, "y.jpg", "1");
    tar_member(&tar, "x.txt", "x");
    tar_member(&tar, "y.txt", "y");
    char *path = finish("some.tar");
    assert_string_equal(found(&path, 1, PAIR, NULL), "a b ");
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 3);
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 3);
    char said[4096] = "";
    FILE *out = fmemopen(said, sizeof said, "w");
    assert_non_null(out);
    dip_faults_print(faults, out);
    fclose(out);
    const char *hint = strstr(said, "tar --sort=name"); /* x's and y's second halves */
    assert_non_null(hint);
    assert_non_null(strstr(said, "no-image (no jpg, jpeg or png member)"));
    assert_non_null(hint = strstr(hint + 1, "tar --sort=name"));
    assert_null(strstr(hint + 1, "tar --sort=name"));
    done();

    start(); /* for a look at the shard they are named and kept */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.cls", "1");
    tar_member(&tar, "bad-label.jpg", "1");
    tar_member(&tar, "bad-label.cls", "one");
    tar_member(&tar, "no-image.txt", "t");
    tar_member(&tar, "no-text.jpg", "1");
    path = finish("look.tar");
    assert_string_equal(found(&path, 1, DIP_NAMES_INCOMPLETE, NULL),
                        "a bad-label no-image no-text ");
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 1);
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    assert_int_equal(count(DIP_FAULT_LABEL), 1);
    assert_int_equal(dip_faults_total(faults), 3);
    done();

    start(); /* images alone are fine for those who need no captions */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "b.png", "1");
    path = finish("images.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE, NULL), "a b ");
    assert_null(dip_samples_get(samples, 0).caption);
    assert_int_equal(dip_samples_get(samples, 0).label, -1);
    done();
    start();
    tar_member(&tar, "a.txt", "1");
    path = finish("captions.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_CAPTION, NULL), "a ");
    assert_null(dip_samples_get(samples, 0).image);
    done();
    start();
    tar_member(&tar, "a.txt", "1");
    path = finish("captions.tar");
    assert_string_equal(found(&path, 1, PAIR, NULL), ""); /* none left: refused */
    done();
}

static void a_duplicate_member_costs_the_sample(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "first");
    tar_member(&tar, "a.TXT", "second");
    tar_member(&tar, "b.jpg", "1");
    tar_member(&tar, "b.txt", "b");
    char *path = finish("twice.tar");
    assert_string_equal(found(&path, 1, PAIR, NULL), "b ");
    assert_int_equal(count(DIP_FAULT_DUPLICATE_MEMBER), 1);
    done();

    start(); /* different kinds of image: open_clip's order decides */
    tar_member(&tar, "a.webp", "w");
    tar_member(&tar, "a.png", "p");
    tar_member(&tar, "a.jpeg", "j");
    tar_member(&tar, "a.txt", "a");
    path = finish("kinds.tar");
    assert_string_equal(found(&path, 1, PAIR, NULL), "a ");
    assert_int_equal(dip_samples_get(samples, 0).image[0], 'p');
    done();
}

static void no_pair_across_shards_or_damage(void **state)
{
    (void)state;
    char *paths[2];
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
    tar_member(&tar, "k.jpg", "of the first shard");
    paths[0] = finish("first.tar");
    start();
    tar_member(&tar, "k.txt", "of the second shard");
    paths[1] = finish("second.tar");
    assert_string_equal(found(paths, 2, PAIR, NULL), "a ");
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 1);
    done();

    start(); /* two samples of one key, the damage takes the second half of one and the first half
                of the other */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
    tar_member(&tar, "k.jpg", "of the first k");
    size_t damage = tar.n;
    tar_member(&tar, "k.txt", "of the first k");
    size_t damage_too = tar.n;
    tar_member(&tar, "k.jpg", "of the second k");
    tar_member(&tar, "k.txt", "of the second k");
    tar.bytes[damage] ^= 1;
    tar.bytes[damage_too] ^= 1;
    char *path = finish("namesakes.tar");
    assert_string_equal(found(&path, 1, PAIR, NULL), "a ");
    assert_int_equal(count(DIP_FAULT_TAR), 1); /* one stretch of damage */
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 1);
    done();

    start(); /* an archive without its end is a warning, not a loss */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
    path = put_file(folder, "open.tar", tar.bytes, tar.n);
    assert_string_equal(found(&path, 1, PAIR, NULL), "a ");
    assert_int_equal(count(DIP_FAULT_TAR), 1);
    done();
}

static void labels(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "1.5", "-1", "1 2", "9999999999999999999"};
    start();
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "bad%d.jpg", i);
        tar_member(&tar, name, "1");
        snprintf(name, sizeof name, "bad%d.cls", i);
        tar_member(&tar, name, bad[i]);
    }
    tar_member(&tar, "none.jpg", "1");
    tar_member(&tar, "ok.jpg", "1");
    tar_member(&tar, "ok.cls", "0");
    char *path = finish("labels.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL, NULL), "ok ");
    assert_int_equal(dip_samples_get(samples, 0).label, 0);
    assert_int_equal(count(DIP_FAULT_LABEL), 7);
    done();
}

static void captions_from_json(void **state)
{
    (void)state;
    static const char *const bad[] = {"{\"caption\": null}",        "{\"caption\": [1]}", "{}", "{",
                                      "{\"caption\": \"\\ud800\"}", "\"caption\""};
    start();
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "bad%d.jpg", i);
        tar_member(&tar, name, "1");
        snprintf(name, sizeof name, "bad%d.json", i);
        tar_member(&tar, name, bad[i]);
    }
    tar_member(&tar, "ok.jpg", "1");
    tar_member(&tar, "ok.json", "{\"key\": 1, \"caption\": \"na\\u00efve \\\"cat\\\"\"}");
    tar_member(&tar, "ok.txt", "not this one");
    char *path = finish("json.tar");
    assert_string_equal(found(&path, 1, PAIR, "caption"), "ok ");
    dip_sample s = dip_samples_get(samples, 0);
    assert_int_equal(s.caption_bytes, strlen("na\xc3\xafve \"cat\""));
    assert_memory_equal(s.caption, "na\xc3\xafve \"cat\"", s.caption_bytes);
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 6);
    done();
}

static int join(void *context, const char *line, size_t n)
{
    char *text = context;
    strncat(text, line, n);
    strcat(text, "|");
    return 0;
}

static void caption_lines(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int n;
        const char *lines;
    } cases[] = {
        {"one", 1, "one|"},
        {"\xef\xbb\xbf one \r\n\r\n\ttwo\n", 2, "one|two|"},
        {" \n\t\r\n", 0, ""},
        {"", 0, ""},
        {"\xd9\x85\xd8\xb1 \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80", 1,
         "\xd9\x85\xd8\xb1 \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80|"},
        {"caf\xe9", -1, ""},          /* Latin-1 */
        {"\xc0\xaf", -1, ""},         /* overlong */
        {"\xed\xa0\x80", -1, ""},     /* a surrogate */
        {"\xf4\x90\x80\x80", -1, ""}, /* above U+10FFFF */
        {"good\n\xe2\x82", -1, ""},   /* cut */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char lines[256] = "";
        size_t n = strlen(cases[i].text);
        assert_int_equal(dip_caption_lines(cases[i].text, n, join, lines), cases[i].n);
        assert_string_equal(lines, cases[i].lines);
        assert_int_equal(dip_caption_lines(cases[i].text, n, NULL, NULL), cases[i].n);
    }
    char lines[16] = "";
    assert_int_equal(dip_caption_lines("a\0b", 3, join, lines), 1); /* a NUL cuts nothing */
}

static void names_cannot_forge_log_lines(void **state)
{
    (void)state;
    dip_sample s = {.shard = "s.tar", .key = "a\nb\x1b[31m\\"};
    char where[64];
    assert_string_equal(dip_sample_where(&s, where, sizeof where), "s.tar: a\\x0ab\\x1b[31m\\x5c");
    s.key = "caf\xe9";
    assert_string_equal(dip_sample_where(&s, where, sizeof where), "s.tar: caf\\xe9");
    s.key = "caf\xc3\xa9";
    assert_string_equal(dip_sample_where(&s, where, sizeof where), "s.tar: caf\xc3\xa9");
}

int main(void)
{
    folder = scratch_init("test_samples");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_read_back),
        cmocka_unit_test(what_is_incomplete_is_named),
        cmocka_unit_test(a_duplicate_member_costs_the_sample),
        cmocka_unit_test(no_pair_across_shards_or_damage),
        cmocka_unit_test(labels),
        cmocka_unit_test(captions_from_json),
        cmocka_unit_test(caption_lines),
        cmocka_unit_test(names_cannot_forge_log_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
