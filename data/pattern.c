#include "data/pattern.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"

enum {
    MAX_PATHS = 10000000,
    MAX_DEPTH = 64,         /* braces inside braces */
    MAX_NUMBER_DIGITS = 18, /* of a range's ends: fits int64_t with room for a difference */
    MAX_NAMED = 20          /* files named in one refusal */
};
static const uint64_t MAX_TEXT_BYTES = 1ull << 31; /* of all paths together */

/* A list that grows and knows the text it holds, so that a short pattern cannot ask for
 * endless memory. */
typedef struct strings {
    char **items;
    size_t n, capacity;
    uint64_t n_bytes;
} strings;

static void strings_free(strings *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->items[i]);
    free(list->items);
    *list = (strings){0};
}

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "not enough memory for a list of paths");
}

/* Append a copy of the n_bytes of `text`, which is not read when there are too many of them. */
static dip_status strings_add(strings *list, const char *text, size_t n_bytes)
{
    if (list->n >= MAX_PATHS)
        return dip_fail(DIP_CONFIG, "a pattern may name at most %d paths", MAX_PATHS);
    if (n_bytes >= PATH_MAX)
        return dip_fail(DIP_CONFIG, "a pattern names a path of %zu bytes; at most %d are allowed",
                        n_bytes, PATH_MAX - 1);
    if (list->n_bytes + n_bytes + 1 > MAX_TEXT_BYTES)
        return dip_fail(DIP_CONFIG, "a pattern names paths of more than %" PRIu64 " bytes together",
                        MAX_TEXT_BYTES);
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        char **items = realloc(list->items, capacity * sizeof *items);
        if (!items) return no_memory();
        list->items = items;
        list->capacity = capacity;
    }
    char *copy = malloc(n_bytes + 1);
    if (!copy) return no_memory();
    memcpy(copy, text, n_bytes);
    copy[n_bytes] = 0;
    list->items[list->n++] = copy;
    list->n_bytes += n_bytes + 1;
    return DIP_OK;
}

/* Move the items of `from` to the end of `to`; `from` is empty afterwards. */
static dip_status strings_take(strings *to, strings *from)
{
    if (from->n > MAX_PATHS - to->n)
        return dip_fail(DIP_CONFIG, "a pattern may name at most %d paths", MAX_PATHS);
    if (to->n_bytes + from->n_bytes > MAX_TEXT_BYTES)
        return dip_fail(DIP_CONFIG, "a pattern names paths of more than %" PRIu64 " bytes together",
                        MAX_TEXT_BYTES);
    if (to->n == 0) {
        strings_free(to);
        *to = *from;
        *from = (strings){0};
        return DIP_OK;
    }
    size_t n = to->n + from->n;
    char **items = realloc(to->items, n * sizeof *items);
    if (!items) return no_memory();
    if (from->n) memcpy(items + to->n, from->items, from->n * sizeof *items);
    to->items = items;
    to->n = to->capacity = n;
    to->n_bytes += from->n_bytes;
    free(from->items);
    *from = (strings){0};
    return DIP_OK;
}

/* What stands side by side in a pattern, e.g. "a{1..3}{x,y}": three factors. */
typedef struct factors {
    strings *lists;
    size_t n, capacity;
} factors;

static void factors_free(factors *f)
{
    for (size_t i = 0; i < f->n; i++) strings_free(&f->lists[i]);
    free(f->lists);
    *f = (factors){0};
}

/* A new, empty factor; NULL when out of memory. */
static strings *factors_add(factors *f)
{
    if (f->n == f->capacity) {
        size_t capacity = f->capacity ? f->capacity * 2 : 8;
        strings *lists = realloc(f->lists, capacity * sizeof *lists);
        if (!lists) return NULL;
        f->lists = lists;
        f->capacity = capacity;
    }
    f->lists[f->n] = (strings){0};
    return &f->lists[f->n++];
}

/* Append one item of every factor after another, in all combinations, the last factor varying
 * fastest. The number of them is checked before the first is made. */
static dip_status factors_multiply(strings *out, const factors *f)
{
    size_t n = 1;
    for (size_t i = 0; i < f->n; i++) {
        if (f->lists[i].n > MAX_PATHS / n)
            return dip_fail(DIP_CONFIG, "a pattern names more than %d paths", MAX_PATHS);
        n *= f->lists[i].n;
    }
    for (size_t index = 0; index < n; index++) {
        char path[PATH_MAX];
        size_t length = 0, inner = n, rest = index;
        for (size_t i = 0; i < f->n; i++) {
            inner /= f->lists[i].n;
            const char *item = f->lists[i].items[rest / inner];
            size_t n_bytes = strlen(item);
            rest %= inner;
            if (length + n_bytes < PATH_MAX) memcpy(path + length, item, n_bytes);
            length += n_bytes;
        }
        DIP_TRY(strings_add(out, path, length));
    }
    return DIP_OK;
}

/* One end of a range, "-?digits"; returns the number of bytes read, 0 if it is no number. */
static size_t number_read(int64_t *value, bool *padded, const char *text, size_t n)
{
    size_t i = n > 0 && text[0] == '-';
    size_t first = i;
    int64_t x = 0;
    for (; i < n && text[i] >= '0' && text[i] <= '9'; i++) {
        if (i - first < MAX_NUMBER_DIGITS) x = x * 10 + (text[i] - '0');
    }
    if (i == first) return 0;
    *value = first ? -x : x;
    *padded = text[first] == '0' && i - first > 1;
    return i;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Letters in the order ranges walk them: A to Z, then a to z. */
static int letter_index(char c)
{
    return c <= 'Z' ? c - 'A' : c - 'a' + 26;
}
static char letter_at(int64_t i)
{
    return (char)(i < 26 ? 'A' + i : 'a' + (i - 26));
}

/* "first..last" or "first..last..step", of numbers or of letters, else *is_range = false. */
static dip_status expand_range(strings *out, bool *is_range, const char *text, size_t n)
{
    *is_range = false;
    int64_t first = 0, last = 0, step = 1;
    bool padded[2] = {false, false}, letters = false, ignored;
    size_t widths[2], at;
    if (n >= 4 && is_letter(text[0]) && text[1] == '.' && text[2] == '.' && is_letter(text[3])) {
        letters = true;
        widths[0] = widths[1] = 1;
        first = letter_index(text[0]);
        last = letter_index(text[3]);
        at = 4;
    } else {
        widths[0] = number_read(&first, &padded[0], text, n);
        at = widths[0];
        if (at == 0 || n - at < 3 || text[at] != '.' || text[at + 1] != '.') return DIP_OK;
        at += 2;
        widths[1] = number_read(&last, &padded[1], text + at, n - at);
        if (widths[1] == 0) return DIP_OK;
        at += widths[1];
    }
    if (at < n) {
        if (n - at < 3 || text[at] != '.' || text[at + 1] != '.') return DIP_OK;
        at += 2;
        size_t width = number_read(&step, &ignored, text + at, n - at);
        if (width == 0 || at + width != n) return DIP_OK;
        if (width > MAX_NUMBER_DIGITS) step = INT64_MAX;
        if (step < 0) step = -step;
        if (step == 0) step = 1;
    }
    *is_range = true;
    uint64_t span = first < last ? (uint64_t)(last - first) : (uint64_t)(first - last);
    size_t width = padded[0] || padded[1] ? (widths[0] > widths[1] ? widths[0] : widths[1]) : 0;
    if (widths[0] > MAX_NUMBER_DIGITS || widths[1] > MAX_NUMBER_DIGITS)
        return dip_fail(DIP_CONFIG, "the range {%.*s} has a number of more than %d digits",
                        (int)(n < 80 ? n : 80), text, MAX_NUMBER_DIGITS);
    if (span / (uint64_t)step >= MAX_PATHS)
        return dip_fail(DIP_CONFIG, "the range {%.*s} has more than %d numbers", (int)n, text,
                        MAX_PATHS);
    for (uint64_t offset = 0;; offset += (uint64_t)step) {
        int64_t value = first < last ? first + (int64_t)offset : first - (int64_t)offset;
        char buf[2 * MAX_NUMBER_DIGITS];
        int length = 1;
        if (letters)
            buf[0] = letter_at(value);
        else
            length = snprintf(buf, sizeof buf, "%0*" PRId64, (int)width, value);
        DIP_TRY(strings_add(out, buf, (size_t)length));
        if (span - offset < (uint64_t)step) return DIP_OK;
    }
}

static dip_status expand_text(strings *out, const char *text, size_t n, int depth);

/* The inside of one pair of braces: a range, a list, or (without a comma) literal text. */
static dip_status expand_braces(strings *out, const char *text, size_t n, int depth)
{
    strings part = {0};
    dip_status status = DIP_OK;
    bool is_range, has_comma = false;
    DIP_TRY_GOTO(expand_range(out, &is_range, text, n));
    if (is_range) return DIP_OK;

    size_t start = 0;
    int open = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && text[i] == '\\') {
            i += i + 1 < n;
            continue;
        }
        if (i < n && text[i] == '{') open++;
        if (i < n && text[i] == '}') open--;
        if (i < n && !(text[i] == ',' && open == 0)) continue;
        if (i == n && !has_comma) break;
        has_comma = true;
        DIP_TRY_GOTO(expand_text(&part, text + start, i - start, depth + 1));
        DIP_TRY_GOTO(strings_take(out, &part));
        start = i + 1;
    }
    if (!has_comma) { /* "{a}" stays "{a}", but what is inside may expand */
        DIP_TRY_GOTO(expand_text(&part, text, n, depth + 1));
        for (size_t i = 0; i < part.n; i++) {
            char whole[PATH_MAX + 2];
            int length = snprintf(whole, sizeof whole, "{%s}", part.items[i]);
            DIP_TRY_GOTO(strings_add(out, whole, (size_t)length));
        }
    }
fail:
    strings_free(&part);
    return status;
}

/* Text without braces; a backslash keeps the next character as it is. */
static dip_status expand_literal(strings *out, const char *text, size_t n)
{
    char *plain = malloc(n + 1);
    if (!plain) return no_memory();
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\' && i + 1 < n) i++;
        plain[length++] = text[i];
    }
    dip_status status = strings_add(out, plain, length);
    free(plain);
    return status;
}

/* Literal text and braces side by side: all combinations of what they expand to. */
static dip_status expand_text(strings *out, const char *text, size_t n, int depth)
{
    factors parts = {0};
    dip_status status = DIP_OK;
    if (depth > MAX_DEPTH)
        return dip_fail(DIP_CONFIG, "braces are nested deeper than %d", MAX_DEPTH);
    size_t start = 0;
    int open = 0;
    for (size_t i = 0; i <= n && open >= 0; i++) {
        bool inside = open > 0;
        if (i < n && text[i] == '\\') {
            i += i + 1 < n;
            continue;
        }
        if (i < n && text[i] == '{') open++;
        if (i < n && text[i] == '}') open--;
        if (i < n && inside == (open > 0)) continue;
        strings *list = factors_add(&parts); /* text[start, i) is a whole part */
        if (!list) {
            status = no_memory();
            goto fail;
        }
        if (inside && i < n)
            DIP_TRY_GOTO(expand_braces(list, text + start, i - start, depth));
        else
            DIP_TRY_GOTO(expand_literal(list, text + start, i - start));
        start = i + 1;
    }
    if (open != 0) {
        status =
            dip_fail(DIP_CONFIG, "'%.*s' has a '%c' without its '%c'", (int)(n < 1000 ? n : 1000),
                     text, open > 0 ? '{' : '}', open > 0 ? '}' : '{');
        goto fail;
    }
    status = factors_multiply(out, &parts);
fail:
    factors_free(&parts);
    return status;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every *.tar of a folder, sorted by name. */
static dip_status expand_folder(strings *out, const char *folder)
{
    strings found = {0};
    dip_status status = DIP_OK;
    DIR *dir = opendir(folder);
    if (!dir) return dip_fail(DIP_IO, "cannot list the folder %s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t n = strlen(entry->d_name);
        if (n <= 4 || strcmp(entry->d_name + n - 4, ".tar") != 0) continue;
        char *path = dip_path_join(folder, entry->d_name);
        status = path ? strings_add(&found, path, strlen(path)) : no_memory();
        free(path);
        if (status != DIP_OK) goto fail;
    }
    if (found.n == 0) {
        status = dip_fail(DIP_CONFIG, "the folder %s has no *.tar file", folder);
        goto fail;
    }
    qsort(found.items, found.n, sizeof *found.items, compare_text);
    status = strings_take(out, &found);
fail:
    strings_free(&found);
    closedir(dir);
    return status;
}

static dip_status expand_one(strings *out, const char *text, size_t n)
{
    if (n == 0) return dip_fail(DIP_CONFIG, "a pattern is empty");
    if (n >= 5 && memcmp(text, "pipe:", 5) == 0)
        return dip_fail(DIP_CONFIG, "'%.*s': commands are not run; copy the shards to a folder",
                        (int)(n < 1000 ? n : 1000), text);
    if (!memchr(text, '{', n) && n < PATH_MAX) {
        char *path = strndup(text, n);
        if (!path) return no_memory();
        bool is_dir = dip_path_is_dir(path);
        dip_status status = is_dir ? expand_folder(out, path) : DIP_OK;
        free(path);
        if (is_dir || status != DIP_OK) return status;
    }
    return expand_text(out, text, n, 0);
}

dip_status dip_pattern_expand(dip_string_list *paths, const char *pattern)
{
    strings all = {0}, part = {0};
    dip_status status = DIP_OK;
    *paths = (dip_string_list){0};
    for (const char *text = pattern;;) {
        const char *end = strstr(text, "::");
        size_t n = end ? (size_t)(end - text) : strlen(text);
        DIP_TRY_GOTO(expand_one(&part, text, n));
        DIP_TRY_GOTO(strings_take(&all, &part));
        if (!end) break;
        text = end + 2;
    }
    paths->items = all.items;
    paths->n_items = all.n;
    return DIP_OK;
fail:
    strings_free(&all);
    strings_free(&part);
    return status;
}

/* Why a path cannot be a shard; NULL if it can. */
static const char *path_objection(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) return strerror(errno);
    if (S_ISDIR(info.st_mode)) return "is a folder";
    if (!S_ISREG(info.st_mode)) return "is not a regular file";
    return access(path, R_OK) == 0 ? NULL : strerror(errno);
}

static dip_status warn_of_repeats(const dip_string_list *paths)
{
    size_t n_repeats = 0;
    char **sorted = malloc((paths->n_items + 1) * sizeof *sorted);
    if (!sorted) return no_memory();
    memcpy(sorted, paths->items, paths->n_items * sizeof *sorted);
    qsort(sorted, paths->n_items, sizeof *sorted, compare_text);
    for (size_t i = 1; i < paths->n_items; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) != 0) continue;
        if (n_repeats++ < MAX_NAMED) dip_warn("%s is listed more than once", sorted[i]);
    }
    if (n_repeats > MAX_NAMED) dip_warn("%zu paths are listed more than once", n_repeats);
    free(sorted);
    return DIP_OK;
}

dip_status dip_pattern_expand_files(dip_string_list *paths, const char *pattern)
{
    dip_status status;
    char list[3000] = "";
    size_t used = 0, n_bad = 0;
    DIP_TRY_GOTO(dip_pattern_expand(paths, pattern));
    for (size_t i = 0; i < paths->n_items; i++) {
        const char *objection = path_objection(paths->items[i]);
        if (!objection) continue;
        if (n_bad++ >= MAX_NAMED || used >= sizeof list) continue;
        int n = snprintf(list + used, sizeof list - used, "\n  %s: %s", paths->items[i], objection);
        used += n > 0 ? (size_t)n : 0;
    }
    if (n_bad > 0) {
        char more[64] = "";
        if (n_bad > MAX_NAMED) snprintf(more, sizeof more, "\n  and %zu more", n_bad - MAX_NAMED);
        status = dip_fail(DIP_CONFIG, "%zu of %zu files cannot be read:%s%s", n_bad, paths->n_items,
                          list, more);
        goto fail;
    }
    DIP_TRY_GOTO(warn_of_repeats(paths));
    return DIP_OK;
fail:
    dip_string_list_free(paths);
    return status;
}

void dip_string_list_free(dip_string_list *list)
{
    for (size_t i = 0; i < list->n_items; i++) free(list->items[i]);
    free(list->items);
    *list = (dip_string_list){0};
}
