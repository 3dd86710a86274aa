/* text/tokenizer.h: training, the reference package's ids, framing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "text/tokenizer_check.h"

#include "golden/spm_golden.h"

static const char *scratch(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/test_tokenizer_%s", TEST_BINARY_DIR, name);
    return path;
}

/* ---- training ---------------------------------------------------------------------------------
 */

static const char *const garments[] = {"t-shirt", "trouser", "pullover", "dress",      "coat",
                                       "sandal",  "shirt",   "sneaker",  "ankle boot", "bag"};

typedef struct captions {
    int n, at;
    char line[128];
} captions;

static int next_caption(void *context, const char **line, size_t *n_bytes)
{
    captions *c = context;
    static const char *const looks[] = {"photo", "drawing", "close-up"};
    if (c->at == c->n) return 0;
    int i = c->at++;
    if (c->n > 30) /* a larger corpus: words that differ */
        snprintf(c->line, sizeof c->line, "a %s of %c%c%c and the %s number %d \xc3\xa9t\xc3\xa9",
                 looks[i % 3], 'a' + i * 7 % 26, 'a' + i * 11 % 26, 'a' + i * 5 % 26,
                 garments[i % 10], i * 37 % 1000);
    else
        snprintf(c->line, sizeof c->line, "a %s of a %s", looks[i % 3], garments[i / 3 % 10]);
    *line = c->line;
    *n_bytes = strlen(c->line);
    return 1;
}

static dip_tokenizer_train_options train_options(captions *source, const char *type, int vocab)
{
    return (dip_tokenizer_train_options){.vocab_size = vocab,
                                         .model_type = type,
                                         .character_coverage = 1,
                                         .next = next_caption,
                                         .next_context = source};
}

static dip_tokenizer *trained(const char *type, int n_captions, int vocab, int *got_vocab)
{
    captions source = {.n = n_captions};
    dip_tokenizer_train_options options = train_options(&source, type, vocab);
    options.output = scratch("trained.model");
    must(dip_tokenizer_train(&options, got_vocab));
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, options.output));
    return tokenizer;
}

static void trained_layout(void **state)
{
    (void)state;
    static const char *const types[] = {"unigram", "bpe"};
    for (int t = 0; t < 2; t++) {
        int vocab = 0;
        dip_tokenizer *tokenizer = trained(types[t], 2000, 300, &vocab);
        assert_in_range(vocab, 100, 300);
        assert_int_equal(vocab, dip_tokenizer_vocab_size(tokenizer));
        assert_int_equal(dip_tokenizer_pad(tokenizer), 0);
        assert_int_equal(dip_tokenizer_unk(tokenizer), 1);
        assert_int_equal(dip_tokenizer_bos(tokenizer), -1);
        assert_int_equal(dip_tokenizer_eos(tokenizer), vocab - 1);
        assert_string_equal(dip_tokenizer_piece(tokenizer, vocab - 1), "</s>");
        assert_string_equal(dip_tokenizer_piece(tokenizer, vocab), "");
        assert_string_equal(dip_tokenizer_model_type(tokenizer), types[t]);

        const char *text = "a photo of a sneaker number 37 \xc3\xa9t\xc3\xa9";
        int32_t ids[64];
        int unknown = -1;
        int n = dip_tokenizer_encode(tokenizer, ids, 64, text, strlen(text), &unknown);
        assert_in_range(n, 5, 40);
        assert_int_equal(unknown, 0);
        assert_int_equal(ids[n - 1], vocab - 1);
        for (int i = 0; i < n - 1; i++) assert_in_range(ids[i], 2, vocab - 2);
        char *back;
        must(dip_tokenizer_decode(tokenizer, &back, ids, n));
        assert_string_equal(back, text);
        free(back);

        /* Nothing of the machine is in the file, and the settings say what the file is. */
        size_t n_bytes;
        const void *bytes = dip_tokenizer_bytes(tokenizer, &n_bytes);
        assert_null(memmem(bytes, n_bytes, TEST_BINARY_DIR, strlen(TEST_BINARY_DIR)));
        dip_tokenizer_close(tokenizer);
    }
}

static void training_is_deterministic(void **state)
{
    (void)state;
    static const char *const types[] = {"unigram", "bpe"};
    for (int t = 0; t < 2; t++) {
        dip_tokenizer *first = trained(types[t], 2000, 300, NULL);
        dip_tokenizer *second = trained(types[t], 2000, 300, NULL);
        size_t n_first, n_second;
        const void *a = dip_tokenizer_bytes(first, &n_first);
        const void *b = dip_tokenizer_bytes(second, &n_second);
        assert_int_equal(n_first, n_second);
        assert_memory_equal(a, b, n_first);
        dip_tokenizer_close(first);
        dip_tokenizer_close(second);
    }
}

static void small_corpus_gives_fewer_pieces(void **state)
{
    (void)state;
    static const char *const types[] = {"unigram", "bpe"};
    for (int t = 0; t < 2; t++) {
        int vocab = 0;
        dip_tokenizer *tokenizer = trained(types[t], 30, 1000, &vocab);
        assert_in_range(vocab, 25, 500);
        assert_int_equal(dip_tokenizer_eos(tokenizer), vocab - 1);
        int32_t ids[32];
        int unknown;
        for (int i = 0; i < 10; i++) {
            int n = dip_tokenizer_encode(tokenizer, ids, 32, garments[i], strlen(garments[i]),
                                         &unknown);
            assert_int_equal(unknown, 0);
            assert_int_equal(ids[n - 1], vocab - 1);
        }
        dip_tokenizer_close(tokenizer);
    }
}

static void byte_fallback_knows_every_text(void **state)
{
    (void)state;
    captions source = {.n = 500};
    dip_tokenizer_train_options options = train_options(&source, "bpe", 400);
    options.byte_fallback = 1;
    options.output = scratch("bytes.model");
    must(dip_tokenizer_train(&options, NULL));
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, options.output));
    const char *text = "\xe2\x98\x83 snowman \xf0\x9f\x98\x80";
    int32_t ids[64];
    int unknown = -1;
    int n = dip_tokenizer_encode(tokenizer, ids, 64, text, strlen(text), &unknown);
    assert_int_equal(unknown, 0);
    char *back;
    must(dip_tokenizer_decode(tokenizer, &back, ids, n));
    assert_string_equal(back, text);
    free(back);
    dip_tokenizer_close(tokenizer);
}

static void training_refuses(void **state)
{
    (void)state;
    captions source = {.n = 30};
    dip_tokenizer_train_options options = train_options(&source, "bpe", 20);
    options.output = scratch("refused.model");
    remove(options.output);
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_CONFIG);
    must_say("vocab-size 20 is too small");
    must_say("alone need 2"); /* 25 or so */

    source = (captions){.n = 0};
    options = train_options(&source, "bpe", 100);
    options.output = scratch("refused.model");
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_FORMAT);
    must_say("no caption");

    options.vocab_size = 3;
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_CONFIG);
    options.vocab_size = 100;
    options.character_coverage = 0.5;
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_CONFIG);
    options.character_coverage = 1;
    options.model_type = "char";
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_CONFIG);
    options.model_type = "bpe";
    options.input = GOLDEN("there_is_no_such_file.txt");
    assert_int_equal(dip_tokenizer_train(&options, NULL), DIP_IO);
    assert_false(dip_path_exists(options.output));
}

static void train_from_a_file(void **state)
{
    (void)state;
    char text[] = "\xef\xbb\xbf"
                  "a red bag\r\n\r\na red\0shoe\na blue bag\n\xff\xfe broken\na blue shoe";
    char input[512];
    snprintf(input, sizeof input, "%s", scratch("input.txt"));
    must(dip_file_write(input, text, sizeof text - 1));
    dip_tokenizer_train_options options = {.input = input,
                                           .output = scratch("file.model"),
                                           .vocab_size = 60,
                                           .model_type = "bpe",
                                           .character_coverage = 1};
    must(dip_tokenizer_train(&options, NULL));
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, options.output));
    int32_t ids[32];
    int unknown;
    dip_tokenizer_encode(tokenizer, ids, 32, "a red shoe", 10, &unknown);
    assert_int_equal(unknown, 0);
    dip_tokenizer_encode(tokenizer, ids, 32, "\xef\xbb\xbf\r", 4, &unknown);
    dip_tokenizer_close(tokenizer);
}

/* ---- the reference's ids ----------------------------------------------------------------------
 */

static void encodes_as_the_reference(void **state)
{
    (void)state;
    dip_tokenizer *t5, *bpe;
    must(dip_tokenizer_open(&t5, GOLDEN("spm_t5.model")));
    must(dip_tokenizer_open(&bpe, GOLDEN("spm_bpe.model")));
    assert_int_equal(dip_tokenizer_eos(t5), 1);
    assert_int_equal(dip_tokenizer_unk(t5), 2);
    assert_int_equal(dip_tokenizer_bos(bpe), 2);
    assert_string_equal(dip_tokenizer_model_type(t5), "unigram");
    assert_string_equal(dip_tokenizer_model_type(bpe), "bpe");
    for (size_t i = 0; i < sizeof golden_texts / sizeof golden_texts[0]; i++) {
        const golden_text *golden = &golden_texts[i];
        int32_t ids[65];
        int n = dip_tokenizer_encode(t5, ids, 65, golden->text, strlen(golden->text), NULL);
        assert_int_equal(n, golden->n_t5 + 1);
        for (int k = 0; k < golden->n_t5; k++) assert_int_equal(ids[k], golden->t5[k]);
        assert_int_equal(ids[n - 1], 1);
        n = dip_tokenizer_encode(bpe, ids, 65, golden->text, strlen(golden->text), NULL);
        assert_int_equal(n, golden->n_bpe + 1);
        for (int k = 0; k < golden->n_bpe; k++) assert_int_equal(ids[k], golden->bpe[k]);
        assert_int_equal(ids[n - 1], dip_tokenizer_eos(bpe));
    }
    dip_tokenizer_close(t5);
    dip_tokenizer_close(bpe);
}

/* ---- framing and hostile text -----------------------------------------------------------------
 */

static void truncation_keeps_eos(void **state)
{
    (void)state;
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, GOLDEN("spm_bpe.model")));
    const char *text = "a photo of a red dress and two boots";
    int32_t all[64], some[64];
    int n_all = dip_tokenizer_encode(tokenizer, all, 64, text, strlen(text), NULL);
    for (int max = 1; max < n_all; max++) {
        some[max] = -7; /* beyond the end */
        assert_int_equal(dip_tokenizer_encode_caption(tokenizer, some, max, text, strlen(text)),
                         max);
        for (int i = 0; i < max - 1; i++) assert_int_equal(some[i], all[i]);
        assert_int_equal(some[max - 1], dip_tokenizer_eos(tokenizer));
        assert_int_equal(some[max], -7);
    }
    dip_tokenizer_close(tokenizer);
}

static void special_spellings_are_text(void **state)
{
    (void)state;
    static const char *const models[] = {GOLDEN("spm_bpe.model"), GOLDEN("spm_t5.model")};
    for (int m = 0; m < 2; m++) {
        dip_tokenizer *tokenizer;
        must(dip_tokenizer_open(&tokenizer, models[m]));
        const char *text = "</s><s><pad>";
        int32_t ids[64];
        int n = dip_tokenizer_encode(tokenizer, ids, 64, text, strlen(text), NULL);
        for (int i = 0; i < n - 1; i++) {
            assert_int_not_equal(ids[i], dip_tokenizer_eos(tokenizer));
            assert_int_not_equal(ids[i], dip_tokenizer_bos(tokenizer));
            assert_int_not_equal(ids[i], dip_tokenizer_pad(tokenizer));
        }
        dip_tokenizer_close(tokenizer);
    }
}

static void any_bytes_are_text(void **state)
{
    (void)state;
    dip_tokenizer *tokenizer = trained("unigram", 2000, 300, NULL); /* with the NFKC table */
    int eos = dip_tokenizer_eos(tokenizer);
    uint32_t x = 12345;
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t n_bytes = round % 64;
        for (size_t i = 0; i < n_bytes; i++) {
            x = x * 1664525u + 1013904223u;
            text[i] = (char)(round % 3 == 0 ? x >> 24 : (x >> 24) | 0x80);
        }
        int32_t ids[16];
        int n = dip_tokenizer_encode(tokenizer, ids, 16, text, n_bytes, NULL);
        assert_in_range(n, 1, 16);
        assert_int_equal(ids[n - 1], eos);
        for (int i = 0; i < n - 1; i++) assert_in_range(ids[i], 1, eos - 1);
    }
    /* A NUL does not cut the text. */
    int32_t ids[64];
    int n = dip_tokenizer_encode(tokenizer, ids, 64, "a\0photo", 7, NULL);
    char *back;
    must(dip_tokenizer_decode(tokenizer, &back, ids, n));
    assert_non_null(strstr(back, "photo"));
    free(back);
    dip_tokenizer_close(tokenizer);
}

static void long_text_takes_bounded_time(void **state)
{
    (void)state;
    enum { TEN_MB = 10 << 20 };
    char *text = malloc(TEN_MB);
    assert_non_null(text);
    static const char *const models[] = {GOLDEN("spm_bpe.model"), GOLDEN("spm_t5.model")};
    static const char *const fillings[] = {"a", " ", "sneaker", "\xe2\x98\x83", "\xff"};
    for (int m = 0; m < 2; m++) {
        dip_tokenizer *tokenizer;
        must(dip_tokenizer_open(&tokenizer, models[m]));
        for (int f = 0; f < 5; f++) {
            size_t n = strlen(fillings[f]);
            for (size_t i = 0; i < TEN_MB; i++) text[i] = fillings[f][i % n];
            struct timespec start, end;
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
            int32_t ids[77];
            int got = dip_tokenizer_encode(tokenizer, ids, 77, text, TEN_MB, NULL);
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
            assert_int_equal(ids[got - 1], dip_tokenizer_eos(tokenizer));
            assert_in_range(end.tv_sec - start.tv_sec, 0, 5);
        }
        dip_tokenizer_close(tokenizer);
    }
    free(text);
}

static void decode_checks_ids(void **state)
{
    (void)state;
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, GOLDEN("spm_bpe.model")));
    int vocab = dip_tokenizer_vocab_size(tokenizer);
    char *text;
    int32_t bad[] = {5, -1}, large[] = {5, 6, vocab}, byte_nul[] = {4 + 'a', 4, 4 + 'b'};
    assert_int_equal(dip_tokenizer_decode(tokenizer, &text, bad, 2), DIP_CONFIG);
    must_say("id -1 at position 1");
    assert_int_equal(dip_tokenizer_decode(tokenizer, &text, large, 3), DIP_CONFIG);
    assert_null(text);
    must(dip_tokenizer_decode(tokenizer, &text, large, 0));
    assert_string_equal(text, "");
    free(text);
    must(dip_tokenizer_decode(tokenizer, &text, byte_nul, 3));
    assert_string_equal(text, "a\xef\xbf\xbd"
                              "b");
    free(text);
    dip_tokenizer_close(tokenizer);
}

/* ---- threads ----------------------------------------------------------------------------------
 */

typedef struct encoder {
    const dip_tokenizer *tokenizer;
    long sum;
} encoder;

static void *encode_many(void *context)
{
    encoder *job = context;
    for (int i = 0; i < 3000; i++) {
        char text[64];
        snprintf(text, sizeof text, "a photo of a %s %d", garments[i % 10], i);
        int32_t ids[32];
        int n = dip_tokenizer_encode(job->tokenizer, ids, 32, text, strlen(text), NULL);
        for (int k = 0; k < n; k++) job->sum = (job->sum * 31 + ids[k]) % 1000003;
    }
    return NULL;
}

static void threads_agree(void **state)
{
    (void)state;
    dip_tokenizer *tokenizer;
    must(dip_tokenizer_open(&tokenizer, GOLDEN("spm_bpe.model")));
    encoder jobs[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (encoder){tokenizer, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, &jobs[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 1; i < 4; i++) assert_int_equal(jobs[i].sum, jobs[0].sum);
    dip_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trained_layout),
        cmocka_unit_test(training_is_deterministic),
        cmocka_unit_test(small_corpus_gives_fewer_pieces),
        cmocka_unit_test(byte_fallback_knows_every_text),
        cmocka_unit_test(training_refuses),
        cmocka_unit_test(train_from_a_file),
        cmocka_unit_test(encodes_as_the_reference),
        cmocka_unit_test(truncation_keeps_eos),
        cmocka_unit_test(special_spellings_are_text),
        cmocka_unit_test(any_bytes_are_text),
        cmocka_unit_test(long_text_takes_bounded_time),
        cmocka_unit_test(decode_checks_ids),
        cmocka_unit_test(threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
