/* Grouping of members into samples: what makes one, what does not, and that it is said. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "data/caption/caption.h"
#include "data/samples_internal.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

static const char *folder;
static tar_build tar;
static dip_samples *samples;
static dip_sample_reader *reader;
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
static const char *found(char **paths, size_t n_paths, int needs)
{
    static char keys[4096];
    dip_string_list shards = {.items = paths, .n_items = n_paths};
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    const dip_samples_options options = {.needs = needs};
    dip_status status = dip_samples_open(&samples, &shards, &options, faults);
    for (size_t i = 0; i < n_paths; i++) free(paths[i]);
    keys[0] = '\0';
    if (status != DIP_OK) {
        assert_int_equal(status, DIP_CONFIG);
        assert_null(samples);
        return keys;
    }
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        strcat(keys, dip_samples_get(samples, i).key);
        strcat(keys, " ");
    }
    return keys;
}

/* The sample with its bytes. */
static dip_sample bytes_of(int64_t index)
{
    dip_sample sample;
    dip_fault_kind kind;
    assert_int_equal(
        dip_sample_read(reader, &sample, index, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, &kind),
        DIP_OK);
    return sample;
}

static void done(void)
{
    dip_sample_reader_close(reader);
    reader = NULL;
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
    assert_string_equal(found(&path, 1, PAIR | DIP_NEEDS_LABEL), "d/k ");
    dip_sample s = dip_samples_get(samples, 0);
    assert_true(s.has_image && s.has_caption && !s.caption_is_json && !s.image && !s.caption);
    assert_int_equal(s.offset, 512);
    s = bytes_of(0);
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
    assert_string_equal(found(&path, 1, PAIR), "a b ");
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 3);
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 3);
    char said[4096] = "";
    FILE *out = fmemopen(said, sizeof said, "w");
    assert_non_null(out);
    dip_faults_print(faults, out);
    fclose(out);
    const char *hint = strstr(said, "tar --sort=name"); /* x's and y's second halves */
    assert_non_null(hint);
    assert_non_null(strstr(said, "no-image (no jpg, jpeg, png or webp member)"));
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
    assert_string_equal(found(&path, 1, DIP_NAMES_INCOMPLETE), "a bad-label no-image no-text ");
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 1);
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    assert_int_equal(count(DIP_FAULT_LABEL), 1);
    assert_int_equal(dip_faults_total(faults), 3);
    done();

    start(); /* images alone are fine for those who need no captions */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "b.png", "1");
    path = finish("images.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE), "a b ");
    assert_false(dip_samples_get(samples, 0).has_caption);
    assert_null(bytes_of(0).caption);
    assert_int_equal(dip_samples_get(samples, 0).label, -1);
    done();
    start();
    tar_member(&tar, "a.txt", "1");
    path = finish("captions.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_CAPTION), "a ");
    assert_false(dip_samples_get(samples, 0).has_image);
    assert_null(bytes_of(0).image);
    done();
    start();
    tar_member(&tar, "a.txt", "1");
    path = finish("captions.tar");
    assert_string_equal(found(&path, 1, PAIR), ""); /* none left: refused */
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
    assert_string_equal(found(&path, 1, PAIR), "b ");
    assert_int_equal(count(DIP_FAULT_DUPLICATE_MEMBER), 1);
    done();

    start(); /* different kinds of image: open_clip's order decides */
    tar_member(&tar, "a.webp", "w");
    tar_member(&tar, "a.png", "p");
    tar_member(&tar, "a.jpeg", "j");
    tar_member(&tar, "a.txt", "a");
    path = finish("kinds.tar");
    assert_string_equal(found(&path, 1, PAIR), "a ");
    assert_int_equal(bytes_of(0).image[0], 'p');
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
    assert_string_equal(found(paths, 2, PAIR), "a ");
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
    assert_string_equal(found(&path, 1, PAIR), "a ");
    assert_int_equal(count(DIP_FAULT_TAR), 1); /* one stretch of damage */
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    assert_int_equal(count(DIP_FAULT_NO_IMAGE), 1);
    done();

    start(); /* an archive without its end is a warning, not a loss */
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
    path = put_file(folder, "open.tar", tar.bytes, tar.n);
    assert_string_equal(found(&path, 1, PAIR), "a ");
    assert_int_equal(count(DIP_FAULT_TAR), 1);
    done();
}

static void labels(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "1.5", "-1", "1 2", "2147483648"};
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
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL), "ok ");
    assert_int_equal(dip_samples_get(samples, 0).label, 0);
    assert_int_equal(count(DIP_FAULT_LABEL), 7);
    done();
}

/* A label costs a read: only those who ask for labels get them. */
static void labels_nobody_asked_for(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.cls", "5");
    char *path = finish("unasked.tar");
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE), "a ");
    assert_int_equal(dip_samples_get(samples, 0).label, -1);
    done();
}

/* A shard that becomes shorter while it is looked through costs samples, not the run. */
static void a_label_that_is_gone(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.cls", "5");
    char *path = finish("gone.tar");
    dip_shard *shard;
    dip_shard_samples into = {.path = path};
    dip_grouper grouper;
    dip_found_member image = {.member = {.name = "a.jpg", .n_bytes = 1, .offset = 512}};
    dip_found_member label = {.member = {.name = "a.cls", .n_bytes = 1, .offset = 1536}};
    assert_int_equal(dip_shard_open_unread(&shard, path), DIP_OK);
    assert_int_equal(truncate(path, 1536), 0);
    dip_grouper_init(&grouper, DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL);
    dip_grouper_begin(&grouper, shard, &into);
    assert_int_equal(dip_grouper_add(&grouper, &image), DIP_OK);
    assert_int_equal(dip_grouper_add(&grouper, &label), DIP_OK);
    assert_int_equal(dip_grouper_end(&grouper), DIP_OK);
    assert_int_equal(into.n, 0);
    assert_int_equal(into.n_faults, 1);
    assert_int_equal(into.faults[0].kind, DIP_FAULT_UNREADABLE);
    assert_string_equal(into.faults[0].key, "a");
    free(into.faults[0].key);
    free(into.faults[0].detail);
    free(into.faults);
    dip_grouper_free(&grouper);
    dip_shard_close(shard);
    free(path);
}

/* Which member is the caption is the caller's choice; what is in it is not looked at here. */
static void captions_in_json(void **state)
{
    (void)state;
    static const char json[] = "{\"key\": 1, \"caption\": \"a \\\"cat\\\"\"}";
    start();
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.json", json);
    tar_member(&tar, "a.txt", "not this one");
    tar_member(&tar, "b.jpg", "1");
    tar_member(&tar, "b.txt", "nor is this a caption");
    char *path = finish("json.tar");
    assert_string_equal(found(&path, 1, PAIR | DIP_CAPTION_JSON), "a ");
    assert_true(dip_samples_get(samples, 0).caption_is_json);
    dip_sample s = bytes_of(0);
    assert_int_equal(s.caption_bytes, strlen(json));
    assert_memory_equal(s.caption, json, s.caption_bytes);
    assert_int_equal(count(DIP_FAULT_NO_CAPTION), 1);
    char *text;
    size_t n;
    assert_int_equal(dip_caption_from_json(&text, &n, s.caption, s.caption_bytes, "caption"),
                     DIP_OK);
    assert_int_equal(n, 7);
    assert_string_equal(text, "a \"cat\"");
    free(text);
    done();

    static const char *const bad[] = {"{\"caption\": null}",        "{\"caption\": [1]}", "{}", "{",
                                      "{\"caption\": \"\\ud800\"}", "\"caption\""};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(dip_caption_from_json(&text, &n, bad[i], strlen(bad[i]), "caption"),
                         DIP_FORMAT);
        assert_null(text);
    }
}

/* A label is read when the shard is opened, and then its checksum is looked at too. */
static void a_damaged_label_is_named(void **state)
{
    (void)state;
    char *pattern = dip_format("%s/labels/{0..}.tar", folder);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, 10), DIP_OK);
    for (int i = 0; i < 2; i++) {
        const dip_shard_part parts[] = {{"jpg", "1", 1}, {"cls", "70", 2}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    free(pattern);
    char *shard = dip_format("%s/labels/0.tar", folder);
    FILE *file = fopen(shard, "r+b"); /* 70 becomes 71 */
    assert_non_null(file);
    assert_int_equal(fseek(file, 3 * 512 + 1, SEEK_SET), 0);
    assert_int_equal(fputc('1', file), '1');
    assert_int_equal(fclose(file), 0);

    char *path = strdup(shard);
    assert_string_equal(found(&path, 1, DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL), "000000001 ");
    assert_int_equal(count(DIP_FAULT_CHECKSUM), 1);
    assert_int_equal(dip_faults_total(faults), 1);
    done();
    path = strdup(shard);
    assert_string_equal(found(&path, 1, DIP_NAMES_INCOMPLETE), "000000000 000000001 ");
    assert_int_equal(count(DIP_FAULT_CHECKSUM), 1);
    assert_int_equal(dip_samples_get(samples, 0).label, -1);
    assert_int_equal(dip_samples_get(samples, 1).label, 70);
    done();
    const dip_samples_options ignore = {.needs = DIP_NEEDS_LABEL, .ignore_index = true};
    const dip_string_list list = {.items = &shard, .n_items = 1};
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_samples_open(&samples, &list, &ignore, faults), DIP_OK);
    assert_int_equal(dip_samples_get(samples, 0).label, 71); /* which nobody can know */
    done();
    free(shard);
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
        cmocka_unit_test(labels_nobody_asked_for),
        cmocka_unit_test(a_label_that_is_gone),
        cmocka_unit_test(a_damaged_label_is_named),
        cmocka_unit_test(captions_in_json),
        cmocka_unit_test(caption_lines),
        cmocka_unit_test(names_cannot_forge_log_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
