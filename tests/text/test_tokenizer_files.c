/* text/tokenizer.h: files that are no models, and damaged ones. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "text/tokenizer_check.h"

static void refuse_bytes(const void *bytes, size_t n_bytes, dip_status expected, const char *words)
{
    dip_tokenizer *tokenizer;
    assert_int_equal(dip_tokenizer_open_bytes(&tokenizer, bytes, n_bytes, "x.model"), expected);
    assert_null(tokenizer);
    must_say("x.model");
    must_say(words);
}

static void refuse_text(const char *text, const char *words)
{
    refuse_bytes(text, strlen(text), DIP_FORMAT, words);
}

static void strangers_are_named(void **state)
{
    (void)state;
    refuse_text("", "is empty");
    refuse_text("<!DOCTYPE html><html>404</html>", "HTML");
    refuse_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer");
    refuse_text("{\"model\": {}}", "JSON");
    refuse_text("hello world, this is a text file", "not a SentencePiece model");
    dip_tokenizer *tokenizer;
    assert_int_equal(dip_tokenizer_open(&tokenizer, GOLDEN("no_such.model")), DIP_IO);
    assert_int_equal(dip_tokenizer_open(&tokenizer, GOLDEN("spm_no_eos.model")), DIP_FORMAT);
    must_say("no end-of-text piece");
}

/* One ModelProto of hand-made parts. */
typedef struct maker {
    uint8_t bytes[1 << 18];
    size_t n;
} maker;

static void add_varint(maker *m, size_t value)
{
    for (; value >= 0x80; value >>= 7) m->bytes[m->n++] = (uint8_t)(value | 0x80);
    m->bytes[m->n++] = (uint8_t)value;
}

static void add_bytes(maker *m, int number, const void *bytes, size_t n)
{
    add_varint(m, (size_t)number << 3 | 2);
    add_varint(m, n);
    memcpy(m->bytes + m->n, bytes, n);
    m->n += n;
}

static void add_piece(maker *m, const char *text, size_t n, uint32_t score_bits, int type)
{
    static maker piece;
    piece.n = 0;
    add_bytes(&piece, 1, text, n);
    piece.bytes[piece.n++] = 2 << 3 | 5;
    memcpy(piece.bytes + piece.n, &score_bits, 4);
    piece.n += 4;
    add_varint(&piece, 3 << 3);
    add_varint(&piece, (size_t)type);
    add_bytes(m, 1, piece.bytes, piece.n);
}

static void begin_model(maker *m)
{
    m->n = 0;
    add_piece(m, "<unk>", 5, 0, 2);
    add_piece(m, "</s>", 4, 0, 3);
    add_piece(m, "a", 1, 0xbf800000u, 1);
}

static void crafted_models(void **state)
{
    (void)state;
    static maker m, normalizer;
    dip_tokenizer *tokenizer;
    begin_model(&m);
    must(dip_tokenizer_open_bytes(&tokenizer, m.bytes, m.n, "x.model"));
    dip_tokenizer_close(tokenizer);

    static char huge[100000];
    memset(huge, 'q', sizeof huge);
    add_piece(&m, huge, sizeof huge, 0, 1);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "piece 3 is 100000 bytes long");
    begin_model(&m);
    add_piece(&m, huge, 1024, 0, 1); /* at the limit */
    must(dip_tokenizer_open_bytes(&tokenizer, m.bytes, m.n, "x.model"));
    dip_tokenizer_close(tokenizer);

    begin_model(&m);
    add_piece(&m, "b", 1, 0x7fc00000u, 1); /* NaN */
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "not finite");
    begin_model(&m);
    add_piece(&m, "b", 1, 0, 9);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "unknown type 9");
    begin_model(&m);
    add_piece(&m, "a", 1, 0, 1);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "not a usable");
    begin_model(&m);
    add_piece(&m, "", 0, 0, 1);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "not a usable");
    m.n = 0;
    add_piece(&m, "</s>", 4, 0, 3);
    add_piece(&m, "a", 1, 0, 1);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "not a usable"); /* no unk */
    begin_model(&m);
    add_bytes(&m, 2, "\x18\x03", 2); /* model_type word */
    refuse_bytes(m.bytes, m.n, DIP_UNSUPPORTED, "is a word model");
    m.n = 0;
    add_bytes(&m, 2, "\x18\x01", 2);
    refuse_bytes(m.bytes, m.n, DIP_FORMAT, "no pieces");

    /* Normalizer tables: (size of the trie, trie units, texts). */
    static uint32_t trie[1 + 512];
    for (int attack = 0; attack < 6; attack++) {
        memset(trie, 0, sizeof trie);
        size_t n_units = 256, n_bytes = 4 + 4 * n_units + 8;
        trie[0] = 4 * 256;
        trie[1] = 0; /* root: offset 0, no children but the ones below */
        if (attack == 0) trie[1] = 0x7fffffu << 10;        /* leaps out of the array */
        if (attack == 1) trie[1 + 'a'] = 'a' | 300u << 10; /* a child that does */
        if (attack == 2) trie[0] = 4 * 100000;             /* larger than the table */
        if (attack == 3) n_bytes = 3;                      /* no room for the size */
        if (attack == 4) {                                 /* a leaf beyond the texts */
            trie[1 + 'a'] = 'a' | 0x100u | ('a' ^ 128u) << 10;
            trie[1 + 128] = 0x80000000u | 8;
        }
        if (attack == 5) memset(trie + 1 + 256, 'x', 8); /* texts without an end */
        begin_model(&m);
        normalizer.n = 0;
        add_bytes(&normalizer, 2, trie, n_bytes);
        add_bytes(&m, 3, normalizer.bytes, normalizer.n);
        refuse_bytes(m.bytes, m.n, DIP_FORMAT, "character table is damaged");
    }
    /* The same table, sound. */
    memset(trie, 0, sizeof trie);
    trie[0] = 4 * 256;
    trie[1 + 'a'] = 'a' | 0x100u | ('a' ^ 128u) << 10;
    trie[1 + 128] = 0x80000000u;
    memcpy(trie + 1 + 256, "bb", 3);
    begin_model(&m);
    normalizer.n = 0;
    add_bytes(&normalizer, 2, trie, 4 + 4 * 256 + 8);
    add_bytes(&m, 3, normalizer.bytes, normalizer.n);
    must(dip_tokenizer_open_bytes(&tokenizer, m.bytes, m.n, "x.model"));
    dip_tokenizer_close(tokenizer);
}

static void nul_in_a_piece(void **state)
{
    (void)state;
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, GOLDEN("spm_nul.model")));
    int32_t ids[16];
    int n = dip_tokenizer_encode(tokenizer, ids, 16, "a bag", 5, NULL);
    assert_in_range(n, 3, 16);
    dip_tokenizer_close(tokenizer);
}

/* Every truncation and every damaged byte: refused, or a model that still works. */
static void damage_never_crashes(void **state)
{
    (void)state;
    char *bytes;
    size_t n_bytes;
    must(dip_file_read(&bytes, &n_bytes, GOLDEN("spm_t5.model"), 1 << 20));
    size_t n_refused = 0;
    for (size_t n = 0; n < n_bytes; n++) {
        dip_tokenizer *tokenizer;
        dip_status status = dip_tokenizer_open_bytes(&tokenizer, bytes, n, "cut");
        assert_true(status == DIP_OK || status == DIP_FORMAT);
        n_refused += status == DIP_FORMAT;
        dip_tokenizer_close(tokenizer);
    }
    assert_true(n_refused > n_bytes * 8 / 10);
    for (size_t i = 0; i < 2 * n_bytes; i++) {
        char saved = bytes[i / 2];
        bytes[i / 2] = (char)(saved ^ (i % 2 ? 0xff : 0x01));
        dip_tokenizer *tokenizer;
        if (dip_tokenizer_open_bytes(&tokenizer, bytes, n_bytes, "bent") == DIP_OK) {
            int32_t ids[16];
            int n = dip_tokenizer_encode(tokenizer, ids, 16, "a photo of a bag", 16, NULL);
            assert_in_range(n, 1, 16);
            char *text;
            if (dip_tokenizer_decode(tokenizer, &text, ids, n) == DIP_OK) free(text);
            dip_tokenizer_close(tokenizer);
        }
        bytes[i / 2] = saved;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_are_named),
        cmocka_unit_test(crafted_models),
        cmocka_unit_test(nul_in_a_piece),
        cmocka_unit_test(damage_never_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
