/* Captions: lines lie inside the text, are text, and have neither blanks nor breaks at their ends;
 * whatever is chosen and cleaned is a line of text too, out of a .txt as out of a .json. */
#include "fuzz/fuzz.h"

#include <stdbool.h>
#include <string.h>

#include "data/caption/caption.h"
#include "core/utf8.h"

enum { N_CLEANS = DIP_CLEAN_CANONICALIZE + 1 };

typedef struct text {
    const char *bytes;
    size_t n;
    int n_lines;
} text;

static int check_line(void *context, const char *line, size_t n)
{
    text *whole = context;
    FUZZ_CHECK(n > 0 && line >= whole->bytes && line + n <= whole->bytes + whole->n);
    FUZZ_CHECK(dip_utf8_valid(line, n));
    FUZZ_CHECK(!memchr(line, '\n', n) && line[0] != ' ' && line[n - 1] != ' ');
    whole->n_lines++;
    return 0;
}

static void check_quoted(const char *bytes, size_t n)
{
    char name[128], quoted[64];
    size_t kept = n < sizeof name - 1 ? n : sizeof name - 1;
    memcpy(name, bytes, kept);
    name[kept] = '\0';
    dip_text_quote(quoted, sizeof quoted, name);
    FUZZ_CHECK(memchr(quoted, '\0', sizeof quoted));
    for (const char *p = quoted; *p; p++) FUZZ_CHECK((unsigned char)*p >= 0x20 && *p != 0x7f);
}

/* One for every way of cleaning; all draw a line and leave words out. */
static dip_captioner *const *captioners(void)
{
    static dip_captioner *all[N_CLEANS];
    static dip_caption_options options[N_CLEANS];
    static char *keys[] = {"caption", "alt"};
    for (int i = 0; i < N_CLEANS && !all[i]; i++) {
        options[i] = (dip_caption_options){.json_keys = {keys, 2},
                                           .random_line = true,
                                           .clean = (dip_caption_clean)i,
                                           .word_dropout = 0.3};
        FUZZ_CHECK(dip_captioner_open(&all[i], &options[i]) == DIP_OK);
    }
    return all;
}

static void check_chosen(const char *bytes, size_t n, bool is_json)
{
    const dip_sample sample = {.shard = "shard.tar",
                               .key = "key",
                               .has_caption = true,
                               .caption_is_json = is_json,
                               .caption = bytes,
                               .caption_bytes = n};
    for (int i = 0; i < N_CLEANS; i++) {
        const char *chosen;
        size_t n_chosen;
        dip_rng rng;
        dip_fault_kind fault = DIP_N_FAULT_KINDS;
        dip_rng_init(&rng, n, 0);
        dip_status status =
            dip_captioner_choose(captioners()[i], &chosen, &n_chosen, &fault, &sample, &rng);
        FUZZ_CHECK(status == DIP_OK || (status == DIP_FORMAT && fault < DIP_N_FAULT_KINDS));
        if (status != DIP_OK) continue;
        FUZZ_CHECK(n_chosen > 0 && dip_utf8_valid(chosen, n_chosen));
        fuzz_canary(chosen, n_chosen);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    text whole = {(const char *)data, n, 0};
    int n_lines = dip_caption_lines(whole.bytes, n, check_line, &whole);
    FUZZ_CHECK((n_lines >= 0) == dip_utf8_valid(whole.bytes, n));
    FUZZ_CHECK(n_lines < 0 || n_lines == whole.n_lines);
    check_quoted(whole.bytes, n);
    check_chosen(whole.bytes, n, false);
    check_chosen(whole.bytes, n, true);
    return 0;
}
