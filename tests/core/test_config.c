#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/json.h"
#include "core/scratch.h"

typedef struct settings {
    int64_t batch_size, seed, free_int;
    double lr;
    bool amp, flip;
    char *data, *loss, *name;
    dip_string_list images;
} settings;

static const dip_option options[] = {
    {"batch-size", DIP_OPT_INT, offsetof(settings, batch_size), "64", 1, 65536, NULL, false, "N",
     "Image-text pairs a step."},
    {"seed", DIP_OPT_INT, offsetof(settings, seed), "0", 0, INFINITY, NULL, false, "N", "Seed."},
    {"free-int", DIP_OPT_INT, offsetof(settings, free_int), "-3", 0, 0, NULL, false, "N", "Any."},
    {"lr", DIP_OPT_FLOAT, offsetof(settings, lr), "5e-4", 0, 10, NULL, false, "X",
     "Learning rate."},
    {"amp", DIP_OPT_BOOL, offsetof(settings, amp), "true", 0, 0, NULL, false, NULL, "bf16."},
    {"flip", DIP_OPT_BOOL, offsetof(settings, flip), NULL, 0, 0, NULL, false, NULL, "Mirror."},
    {"train-data", DIP_OPT_STRING, offsetof(settings, data), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards."},
    {"loss", DIP_OPT_CHOICE, offsetof(settings, loss), "clip", 0, 0, "clip|siglip", false, "NAME",
     "Objective."},
    {"name", DIP_OPT_STRING, offsetof(settings, name), NULL, 0, 0, NULL, false, "NAME", "Run."},
    {"images", DIP_OPT_LIST, offsetof(settings, images), "a.jpg b.jpg", 0, 0, NULL, false, "FILE",
     "Images."},
};
static const dip_option_table table = {options, sizeof options / sizeof options[0], true};

/* Parse words[0..], a list that ends with NULL, over fresh defaults. */
static dip_status parse(settings *s, const char *const *words)
{
    int argc = 0;
    while (words[argc]) argc++;
    assert_int_equal(dip_config_defaults(&table, s), DIP_OK);
    return dip_config_parse(&table, s, argc, (char **)(uintptr_t)words);
}
#define PARSE(s, ...) parse(s, (const char *const[]){__VA_ARGS__, NULL})

static int count_lines(const char *text)
{
    int n = 1;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void expect_sentence(const char *part)
{
    if (!strstr(dip_error(), part)) fail_msg("\"%s\" does not say \"%s\"", dip_error(), part);
}

static void refuse(const char *const *words, const char *part)
{
    settings s;
    assert_int_equal(parse(&s, words), DIP_CONFIG);
    expect_sentence(part);
    if (count_lines(dip_error()) != 1) fail_msg("more than one mistake: %s", dip_error());
    dip_config_free(&table, &s);
}
#define REFUSE(part, ...)                                                                          \
    refuse((const char *const[]){"--train-data", "x", __VA_ARGS__, NULL}, part)

static void defaults(void **state)
{
    (void)state;
    settings s;
    memset(&s, 0xee, sizeof s);
    assert_int_equal(dip_config_defaults(&table, &s), DIP_OK);
    assert_int_equal(s.batch_size, 64);
    assert_int_equal(s.free_int, -3);
    assert_true(s.lr == 5e-4);
    assert_true(s.amp);
    assert_false(s.flip);
    assert_null(s.data);
    assert_string_equal(s.loss, "clip");
    assert_int_equal(s.images.n_items, 2);
    assert_string_equal(s.images.items[1], "b.jpg");
    dip_config_free(&table, &s);
    dip_config_free(&table, &s); /* freed is as good as zeroed */
    dip_option wrong = options[0];
    wrong.default_text = "0";
    const dip_option_table wrong_table = {&wrong, 1, false};
    assert_int_equal(dip_config_defaults(&wrong_table, &s), DIP_CONFIG);
    expect_sentence("the default of --batch-size");
}

static void every_way_to_write_a_flag(void **state)
{
    (void)state;
    settings s;
    assert_int_equal(PARSE(&s, "--batch_size=128", "--lr", "-0", "--no-amp", "--flip",
                           "--train-data={00..59}.tar", "--free-int", "-7", "--images", "x", "-y",
                           "--loss", "siglip", "--images=--z", "--name", "--no=1"),
                     DIP_CONFIG); /* --name has no value: --no=1 is a flag */
    dip_config_free(&table, &s);
    assert_int_equal(PARSE(&s, "--batch_size=128", "--lr", "-0", "--no-amp", "--flip=true",
                           "--train-data={00..59}.tar", "--free-int", "-7", "--images", "x", "-y",
                           "--loss", "siglip", "--images=--z", "--name=--no=1"),
                     DIP_OK);
    assert_int_equal(s.batch_size, 128);
    assert_true(s.lr == 0);
    assert_false(s.amp);
    assert_true(s.flip);
    assert_string_equal(s.data, "{00..59}.tar");
    assert_int_equal(s.free_int, -7);
    assert_string_equal(s.loss, "siglip");
    assert_string_equal(s.name, "--no=1");
    assert_int_equal(s.images.n_items, 3);
    assert_string_equal(s.images.items[1], "-y");
    assert_string_equal(s.images.items[2], "--z");
    dip_config_free(&table, &s);
}

static void single_mistakes(void **state)
{
    (void)state;
    REFUSE("--batch-sise: no such option, did you mean --batch-size?", "--batch-sise", "3");
    REFUSE("--batch: no such option, did you mean --batch-size?", "--batch=3");
    REFUSE("--confg: no such option, did you mean --config?", "--confg", "x.json");
    REFUSE("--zzzzzz: no such option", "--zzzzzz");
    REFUSE("--no-lr: no such option", "--no-lr");
    REFUSE("--: no such option", "--");
    REFUSE("--batch-size: \"0\" is not allowed, give an integer from 1 to 65536", "--batch-size=0");
    REFUSE("\"-1\" is not allowed", "--batch-size", "-1");
    REFUSE("\"12x\" is not allowed", "--batch-size", "12x");
    REFUSE("\"\" is not allowed", "--batch-size=");
    REFUSE("\"1e3\" is not allowed", "--batch-size=1e3");
    REFUSE("an integer of at least 0", "--seed=-1");
    REFUSE("\"9223372036854775808\" is not allowed", "--seed=9223372036854775808");
    REFUSE("\"9007199254740993\" is not allowed, give an integer", "--free-int=9007199254740993");
    REFUSE("--lr: \"inf\" is not allowed, give a number from 0 to 10", "--lr=inf");
    REFUSE("\"nan\" is not allowed", "--lr=nan");
    REFUSE("\"1e999\" is not allowed", "--lr=1e999");
    REFUSE("\"0,5\" is not allowed", "--lr=0,5");
    REFUSE("\"11\" is not allowed", "--lr=11");
    REFUSE("--loss: \"Clip\" is not allowed, give one of clip|siglip", "--loss", "Clip");
    REFUSE("\"cli\" is not allowed", "--loss=cli");
    REFUSE("\"clip|siglip\" is not allowed", "--loss=clip|siglip");
    REFUSE("--flip: \"yes\" is not allowed, give true or false", "--flip=yes");
    REFUSE("--no-flip: takes no value", "--no-flip=true");
    REFUSE("true: unexpected word (write --flip or --flip=true)", "--flip", "true");
    REFUSE("stray: unexpected word", "stray");
    REFUSE("-b: unexpected word", "-b");
    REFUSE("--name: an empty text is not allowed", "--name", "");
    REFUSE("--images: an empty text is not allowed", "--images", "a", "");
    REFUSE("--lr: given twice", "--lr=1", "--lr=1");
    REFUSE("--amp: given twice", "--amp", "--no-amp");
    REFUSE("--lr: the value is missing, give a number from 0 to 10", "--lr");
    REFUSE("--lr: the value is missing", "--lr", "--flip");
    REFUSE("--images: the value is missing, give a list", "--images", "--flip");
    REFUSE("--config: the value is missing, give a file", "--config");
    REFUSE("--config: cannot open /no/such.json: No such file", "--config", "/no/such.json");
    const char *const nothing[] = {NULL};
    refuse(nothing, "--train-data: required, give a text");
}

static void all_mistakes_at_once(void **state)
{
    (void)state;
    settings s;
    assert_int_equal(PARSE(&s, "--batch-size=0", "--lr", "fast", "--los", "clip", "--loss=x",
                           "--flip", "yes", "--name"),
                     DIP_CONFIG);
    static const char *const parts[] = {
        "--batch-size: \"0\"", "--lr: \"fast\"",    "--los: no such",        "--loss: \"x\"",
        "yes: unexpected",     "--name: the value", "--train-data: required"};
    for (size_t i = 0; i < 7; i++) expect_sentence(parts[i]);
    assert_int_equal(count_lines(dip_error()), 7);
    dip_config_free(&table, &s);
    /* A thousand mistakes, one of them long: the text is cut between lines and says so. */
    enum { N = 1000 };
    const char **words = calloc(N + 1, sizeof *words);
    char *longer = malloc(5001);
    memset(longer, 'y', 5000);
    longer[5000] = '\0';
    for (int i = 0; i < N; i++) words[i] = i == 3 ? longer : "--zzzzzz=1";
    assert_int_equal(parse(&s, words), DIP_CONFIG);
    expect_sentence("more mistakes");
    assert_true(strlen(dip_error()) < 4000);
    dip_config_free(&table, &s);
    free(longer);
    free(words);
}

static char *write_config(const char *text)
{
    char *path = dip_path_join(scratch_init("test_config"), "run.json");
    assert_int_equal(dip_file_write(path, text, strlen(text)), DIP_OK);
    return path;
}

static void flags_win_over_the_file(void **state)
{
    (void)state;
    settings s;
    char *path = write_config("{\"batch_size\": 256, \"train-data\": \"file.tar\", \"amp\": false,"
                              " \"images\": [\"f\"], \"lr\": 1, \"name\": null, \"flip\": true}");
    assert_int_equal(
        PARSE(&s, "--batch-size", "8", "--config", path, "--images", "c", "d", "--no-flip"),
        DIP_OK);
    assert_int_equal(s.batch_size, 8);
    assert_string_equal(s.data, "file.tar"); /* required, given by the file */
    assert_false(s.amp);
    assert_false(s.flip);
    assert_true(s.lr == 1);
    assert_null(s.name);
    assert_int_equal(s.images.n_items, 2);
    assert_string_equal(s.images.items[0], "c");
    dip_config_free(&table, &s);

    assert_int_equal(PARSE(&s, "--config", path, "--config", path), DIP_CONFIG);
    expect_sentence("--config: given twice");
    dip_config_free(&table, &s);

    char *words[] = {"--seed", "1", "--config", path};
    assert_true(dip_config_given(&table, 4, words, "seed"));
    assert_true(dip_config_given(&table, 4, words, "batch-size"));
    assert_false(dip_config_given(&table, 2, words, "batch-size"));
    assert_false(dip_config_given(&table, 4, words, "name")); /* null is "not given" */
    assert_false(dip_config_given(&table, 4, words, "loss"));
    free(path);
}

static void mistakes_of_a_file(void **state)
{
    (void)state;
    settings s;
    char *path = write_config(
        "{\"batch_size\": \"12\", \"lr\": \"12x\", \"sed\": 1, \"amp\": 1, \"seed\": 1.5,\n"
        " \"loss\": \"x\", \"free_int\": 9223372036854775808, \"free-int\": 1,\n"
        " \"images\": [\"a\", 2], \"name\": [1], \"train_data\": \"\"}");
    assert_int_equal(PARSE(&s, "--config", path), DIP_CONFIG);
    const char *const parts[] = {
        "run.json: batch_size: \"12\" is not allowed, give an integer from 1 to 65536",
        "run.json: lr: \"12x\" is not allowed",
        "run.json: sed: no such key, did you mean seed?",
        "run.json: amp: 1 is not allowed, give true or false",
        "run.json: seed: 1.5 is not allowed",
        "run.json: loss: \"x\" is not allowed",
        "free_int: 9.223372036854776e+18 is not allowed",
        "free-int: given twice",
        "images: 2 is not allowed, give a list of texts",
        "name: [1] is not allowed",
        "train_data: an empty text",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) expect_sentence(parts[i]);
    assert_int_equal(count_lines(dip_error()), 11);
    dip_config_free(&table, &s);
    free(path);
    /* A file that is no object, and mistakes in file and flags together. */
    path = write_config("[1]");
    assert_int_equal(PARSE(&s, "--config", path, "--lr=x"), DIP_CONFIG);
    expect_sentence("a JSON object of options is needed");
    expect_sentence("--lr: \"x\"");
    expect_sentence("--train-data: required");
    dip_config_free(&table, &s);
    free(path);
    path = write_config("{\"lr\": 1,}");
    assert_int_equal(PARSE(&s, "--config", path, "--train-data=x"), DIP_CONFIG);
    expect_sentence("run.json, line 1, column 9: a comma with nothing after it");
    dip_config_free(&table, &s);
    free(path);
}

static void nothing_is_not_enough_for_a_required_option(void **state)
{
    (void)state;
    dip_option option = options[9];
    option.required = true;
    option.default_text = NULL;
    const dip_option_table lists = {&option, 1, true};
    settings s;
    char *path = write_config("{\"images\": []}"), *words[] = {"--config", path};
    assert_int_equal(dip_config_defaults(&lists, &s), DIP_OK);
    assert_int_equal(dip_config_parse(&lists, &s, 2, words), DIP_CONFIG);
    expect_sentence("--images: required");
    dip_config_free(&lists, &s);
    free(path);
    path = write_config("{\"train_data\": null}"); /* null is not a value either */
    assert_int_equal(PARSE(&s, "--config", path), DIP_CONFIG);
    expect_sentence("--train-data: required");
    dip_config_free(&table, &s);
    free(path);
}

static void the_resolved_configuration_reads_back(void **state)
{
    (void)state;
    settings s, back;
    assert_int_equal(
        PARSE(&s, "--lr=0.1", "--seed=9007199254740991", "--train-data=\xff\xc3\xa9", "--no-amp"),
        DIP_OK);
    cJSON *object = dip_config_to_json(&table, &s);
    char *path = dip_path_join(scratch_init("test_config"), "run.json");
    assert_int_equal(dip_json_write(path, object), DIP_OK);
    cJSON_Delete(object);
    assert_int_equal(dip_json_read(&object, path), DIP_OK);
    assert_int_equal(dip_config_defaults(&table, &back), DIP_OK);
    assert_int_equal(dip_config_from_json(&table, &back, object, path), DIP_OK);
    cJSON_Delete(object);
    assert_true(back.lr == 0.1);
    assert_true(back.seed == 9007199254740991);
    assert_false(back.amp);
    assert_null(back.name);
    assert_int_equal(back.images.n_items, 2);
    assert_string_equal(back.data, "\xef\xbf\xbd\xc3\xa9"); /* not UTF-8: replaced */
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    dip_config_print(&table, &back, out);
    fclose(out);
    assert_string_equal(text, "batch_size: 64\nseed: 9007199254740991\nfree_int: -3\nlr: 0.1\n"
                              "amp: false\nflip: false\ntrain_data: \xef\xbf\xbd\xc3\xa9\n"
                              "loss: clip\nname: none\nimages: a.jpg b.jpg\n");
    free(text);
    dip_config_free(&table, &back);
    dip_config_free(&table, &s);
    free(path);
}

static void the_help_names_every_option(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    dip_config_print_help(&table, out);
    dip_print_wrapped(out, 4,
                      "one two three four five six seven eight nine ten\neleven twelve "
                      "thirteen fourteen fifteen\n\nnext\n  kept   as it is\nlast");
    dip_print_lines(out, 4,
                    "first\n  second 3456789012345678901234567890123456789012345678901234 and "
                    "what follows it\n");
    fclose(out);
    for (size_t i = 0; i < table.n_options; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "  --%s", options[i].key);
        assert_non_null(strstr(text, flag));
    }
    assert_non_null(strstr(text, "  --config FILE\n"));
    assert_non_null(strstr(text, "  --batch-size N\n        Image-text pairs a step.\n"
                                 "        An integer from 1 to 65536. Default: 64.\n"));
    assert_non_null(strstr(text, "  --amp, --no-amp\n"));
    assert_non_null(strstr(text, "One of clip|siglip. Default: clip."));
    assert_non_null(strstr(text, "Required."));
    assert_non_null(strstr(text,
                           "    one two three four five six seven eight nine ten eleven twelve "
                           "thirteen\n    fourteen fifteen\n\n    next\n"
                           "      kept   as it is\n    last\n"
                           "    first\n      second "
                           "3456789012345678901234567890123456789012345678901234 and what\n"
                           "          follows it\n"));
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        assert_true(end - line <= 80);
    free(text);
}

static void nearest_words(void **state)
{
    (void)state;
    static const char *const words[] = {"epochs", "batch-size", "warmup", "wd", "lr"};
    const char *const rows[][2] = {{"epoch", "epochs"},
                                   {"epohcs", "epochs"},
                                   {"EPOCHS", "epochs"},
                                   {"batch", "batch-size"},
                                   {"batch_sise", "batch-size"},
                                   {"warm", "warmup"},
                                   {"wb", "wd"},
                                   {"rl", "lr"},
                                   {"tokenizer", NULL},
                                   {"", NULL},
                                   {"x", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *nearest = dip_nearest_word(rows[i][0], words, 5);
        if (!rows[i][1])
            assert_null(nearest);
        else
            assert_string_equal(nearest, rows[i][1]);
    }
    char longer[301];
    memset(longer, 'a', 300);
    longer[300] = '\0';
    assert_null(dip_nearest_word(longer, words, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(every_way_to_write_a_flag),
        cmocka_unit_test(single_mistakes),
        cmocka_unit_test(all_mistakes_at_once),
        cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(mistakes_of_a_file),
        cmocka_unit_test(nothing_is_not_enough_for_a_required_option),
        cmocka_unit_test(the_resolved_configuration_reads_back),
        cmocka_unit_test(the_help_names_every_option),
        cmocka_unit_test(nearest_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
