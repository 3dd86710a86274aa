#include "data/caption/caption.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/caption/caption_json.h"
#include "data/caption/caption_text.h"
#include "core/utf8.h"

/* Lines. */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

int dip_caption_lines(const char *text, size_t n_bytes,
                      int (*each)(void *context, const char *line, size_t n), void *context)
{
    if (!dip_utf8_valid(text, n_bytes)) return -1;
    if (n_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        n_bytes -= 3;
    }
    int n_lines = 0;
    const char *end = text + n_bytes;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *first = text, *last = newline ? newline : end;
        text = newline ? newline + 1 : end;
        while (first < last && is_blank(*first)) first++;
        while (last > first && is_blank(last[-1])) last--;
        if (first == last) continue;
        n_lines++;
        if (each && each(context, first, (size_t)(last - first))) break;
    }
    return n_lines;
}

typedef struct line_choice {
    int64_t wanted, at;
    const char *line;
    size_t n_bytes;
} line_choice;

static int pick_line(void *context, const char *line, size_t n)
{
    line_choice *choice = context;
    if (choice->at++ < choice->wanted) return 0;
    choice->line = line;
    choice->n_bytes = n;
    return 1;
}

/* The captioner. */

struct dip_captioner {
    const dip_caption_options *options;
    const char **keys; /* in this sample's order, with their weights */
    double *weights;
    char *json_text; /* of the last .json member */
    char *work, *lowered;
    size_t capacity; /* of work; of lowered half as much again */
};

dip_status dip_caption_clean_find(dip_caption_clean *clean, const char *name)
{
    const char *at = DIP_CAPTION_CLEANS;
    for (int i = 0;; i++) {
        size_t n = strcspn(at, "|");
        *clean = (dip_caption_clean)i;
        if (strlen(name) == n && memcmp(name, at, n) == 0) return DIP_OK;
        if (at[n] == '\0') break;
        at += n + 1;
    }
    return dip_fail(DIP_CONFIG, "captions can be cleaned by %s, not by '%.40s'", DIP_CAPTION_CLEANS,
                    name);
}

static dip_status check_options(const dip_caption_options *o)
{
    for (size_t i = 0; o->json_weights && i < o->json_keys.n_items; i++)
        if (!(o->json_weights[i] >= 0 && isfinite(o->json_weights[i])))
            return dip_fail(DIP_CONFIG,
                            "the weight of the JSON key '%s' is %g; it must be 0 or more",
                            o->json_keys.items[i], o->json_weights[i]);
    if (!(o->word_dropout >= 0 && o->word_dropout <= 1))
        return dip_fail(DIP_CONFIG, "a word dropout of %g; it is a probability, 0 to 1",
                        o->word_dropout);
    return DIP_OK;
}

dip_status dip_captioner_open(dip_captioner **out, const dip_caption_options *options)
{
    *out = NULL;
    DIP_TRY(check_options(options));
    const size_t n_keys = options->json_keys.n_items;
    dip_captioner *captioner = calloc(1, sizeof *captioner);
    if (captioner) captioner->keys = calloc(n_keys + 1, sizeof *captioner->keys);
    if (captioner) captioner->weights = calloc(n_keys + 1, sizeof *captioner->weights);
    if (!captioner || !captioner->keys || !captioner->weights) {
        dip_captioner_close(captioner);
        return dip_fail(DIP_NOMEM, "no memory for captions");
    }
    captioner->options = options;
    *out = captioner;
    return DIP_OK;
}

void dip_captioner_close(dip_captioner *captioner)
{
    if (!captioner) return;
    free(captioner->keys);
    free(captioner->weights);
    free(captioner->json_text);
    free(captioner->work);
    free(captioner->lowered);
    free(captioner);
}

/* Which of the keys [from, n) comes next: drawn by weight, or the first when none has any. */
static size_t draw_key(const double *weights, size_t from, size_t n, dip_rng *rng)
{
    double sum = 0;
    for (size_t i = from; i < n; i++) sum += weights[i];
    if (!(sum > 0)) return from;
    double at = sum * dip_rng_uniform(rng);
    size_t last = from;
    for (size_t i = from; i < n; i++) {
        if (weights[i] <= 0) continue;
        last = i;
        if (at < weights[i]) break;
        at -= weights[i];
    }
    return last;
}

static void order_keys(dip_captioner *captioner, dip_rng *rng)
{
    const dip_caption_options *o = captioner->options;
    const size_t n = o->json_keys.n_items;
    const char **keys = captioner->keys;
    double *weights = captioner->weights;
    for (size_t i = 0; i < n; i++) keys[i] = o->json_keys.items[i];
    if (!o->json_weights) return;
    memcpy(weights, o->json_weights, n * sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        const size_t next = draw_key(weights, i, n, rng);
        const char *key = keys[next];
        const double weight = weights[next];
        memmove(keys + i + 1, keys + i, (next - i) * sizeof *keys);
        memmove(weights + i + 1, weights + i, (next - i) * sizeof *weights);
        keys[i] = key;
        weights[i] = weight;
    }
}

static dip_status choose_line(dip_captioner *captioner, const char **text, size_t *n_bytes,
                              dip_fault_kind *fault, dip_rng *rng)
{
    line_choice choice = {0};
    if (captioner->options->random_line) {
        int n = dip_caption_lines(*text, *n_bytes, NULL, NULL);
        if (n > 1) choice.wanted = (int64_t)dip_rng_below(rng, (uint64_t)n);
    }
    const int n_lines = dip_caption_lines(*text, *n_bytes, pick_line, &choice);
    *fault = n_lines < 0 ? DIP_FAULT_CAPTION_UTF8 : DIP_FAULT_CAPTION_EMPTY;
    if (n_lines < 0) return dip_fail(DIP_FORMAT, "bytes that are not UTF-8");
    if (n_lines == 0) return dip_fail(DIP_FORMAT, "nothing but blanks");
    *text = choice.line;
    *n_bytes = choice.n_bytes;
    return DIP_OK;
}

static dip_status make_room(dip_captioner *captioner, size_t n_bytes)
{
    if (n_bytes <= captioner->capacity) return DIP_OK;
    free(captioner->work);
    free(captioner->lowered);
    captioner->work = malloc(n_bytes);
    captioner->lowered = malloc(n_bytes + n_bytes / 2);
    captioner->capacity = captioner->work && captioner->lowered ? n_bytes : 0;
    if (captioner->capacity == 0) return dip_fail(DIP_NOMEM, "no memory for a caption");
    return DIP_OK;
}

/* Clean work[0..n); returns the length, *text is where it lies. */
static size_t clean(dip_captioner *captioner, char **text, size_t n)
{
    const dip_caption_clean how = captioner->options->clean;
    char *work = captioner->work;
    *text = work;
    if (how == DIP_CLEAN_NONE) return n;
    if (!memchr(work, '<', n))
        n = dip_caption_unescape(work, n); /* ftfy's own, before its repairs */
    n = dip_caption_plain(work, n);
    n = dip_caption_unescape(work, n);
    n = dip_caption_unescape(work, n);
    if (how == DIP_CLEAN_CANONICALIZE || how == DIP_CLEAN_WHITESPACE_UNDERSCORE)
        n = dip_caption_punctuation(work, n, how == DIP_CLEAN_CANONICALIZE);
    n = dip_caption_join_blanks(work, n);
    if (how != DIP_CLEAN_CANONICALIZE && how != DIP_CLEAN_LOWER) return n;
    *text = captioner->lowered;
    return dip_utf8_lower(captioner->lowered, work, n);
}

static dip_status clean_line(dip_captioner *captioner, const char **text, size_t *n_bytes,
                             dip_fault_kind *fault, dip_rng *rng)
{
    const dip_caption_options *o = captioner->options;
    if (o->clean == DIP_CLEAN_NONE && o->word_dropout == 0) return DIP_OK;
    DIP_TRY(make_room(captioner, *n_bytes));
    memcpy(captioner->work, *text, *n_bytes);
    char *cleaned;
    *n_bytes = clean(captioner, &cleaned, *n_bytes);
    if (o->word_dropout > 0)
        *n_bytes = dip_caption_drop_words(cleaned, *n_bytes, o->word_dropout, rng);
    *text = cleaned;
    *fault = DIP_FAULT_CAPTION_EMPTY;
    if (*n_bytes == 0) return dip_fail(DIP_FORMAT, "nothing is left of it after cleaning");
    return DIP_OK;
}

dip_status dip_captioner_choose(dip_captioner *captioner, const char **text, size_t *n_bytes,
                                dip_fault_kind *fault, const dip_sample *sample, dip_rng *rng)
{
    *fault = DIP_FAULT_NO_CAPTION;
    if (!sample->caption) return dip_fail(DIP_FORMAT, "no caption member");
    *text = sample->caption;
    *n_bytes = sample->caption_bytes;
    if (sample->caption_is_json) {
        order_keys(captioner, rng);
        free(captioner->json_text);
        DIP_TRY(dip_caption_read_json(&captioner->json_text, n_bytes, fault, sample->caption,
                                      sample->caption_bytes, captioner->keys,
                                      captioner->options->json_keys.n_items));
        *text = captioner->json_text;
    }
    DIP_TRY(choose_line(captioner, text, n_bytes, fault, rng));
    const size_t most = captioner->options->max_bytes;
    if (most > 0 && *n_bytes > most) {
        *fault = DIP_FAULT_NO_CAPTION;
        return dip_fail(DIP_FORMAT, "its caption has %zu bytes, at most %zu are allowed", *n_bytes,
                        most);
    }
    return clean_line(captioner, text, n_bytes, fault, rng);
}
