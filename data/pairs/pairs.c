#include "data/pairs/pairs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pairs/pairs_internal.h"
#include "data/pattern.h"

dip_status dip_pairs_no_memory(const char *path)
{
    return dip_fail(DIP_NOMEM, "%s: no memory for the list of pairs", path);
}

/* Lists of files. */

void dip_pair_files_free(dip_pair_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        free(files->items[i].image_path);
        free(files->items[i].text_path);
        free(files->items[i].text);
    }
    free(files->items);
    dip_string_list_free(&files->classes);
    dip_templates_free(&files->templates);
    *files = (dip_pair_files){0};
}

static void close_files(void *state)
{
    if (!state) return;
    dip_pair_files_free(state);
    free(state);
}

static char *file_name(const void *state, int64_t index)
{
    const dip_pair_files *files = state;
    const char *path = files->items[index].image_path + files->items[index].name_at;
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    return strndup(path, dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path));
}

static dip_digest digest_files(const void *state, dip_digest digest)
{
    const dip_pair_files *files = state;
    for (size_t i = 0; i < files->n; i++) {
        digest = dip_digest_text(digest, files->items[i].image_path);
        if (files->items[i].text) digest = dip_digest_text(digest, files->items[i].text);
        digest = dip_digest_number(digest, files->items[i].label);
    }
    for (size_t i = 0; i < files->templates.lines.n; i++)
        digest = dip_digest_text(digest, files->templates.lines.items[i]);
    return digest;
}

dip_status dip_pair_read_status(dip_status status)
{
    return status == DIP_IO && errno != EMFILE && errno != ENFILE ? DIP_FORMAT : status;
}

static dip_status read_file(char **out, size_t *n, const char *path, size_t max_bytes,
                            dip_fault_kind *kind)
{
    *kind = DIP_FAULT_UNREADABLE;
    if (dip_path_is_dir(path)) return dip_fail(DIP_FORMAT, "%s: is a folder", path);
    errno = 0;
    return dip_pair_read_status(dip_file_read(out, n, path, max_bytes));
}

dip_status dip_pair_image_kind(const char **extension, const dip_pair *pair, dip_fault_kind *kind)
{
    const uint8_t *image = pair->image;
    size_t n = pair->image_bytes;
    if (n >= 3 && memcmp(image, "\xff\xd8\xff", 3) == 0)
        *extension = "jpg";
    else if (n >= 8 && memcmp(image, "\x89PNG\r\n\x1a\n", 8) == 0)
        *extension = "png";
    else if (n >= 12 && memcmp(image, "RIFF", 4) == 0 && memcmp(image + 8, "WEBP", 4) == 0)
        *extension = "webp";
    else {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return dip_fail(DIP_FORMAT, "its first bytes are neither JPEG's, PNG's nor WebP's");
    }
    return DIP_OK;
}

static dip_status load_captions(const dip_pair_files *files, dip_pair *pair, int64_t index,
                                dip_fault_kind *kind)
{
    const dip_pair_file *file = &files->items[index];
    if (file->text_path)
        return read_file(&pair->text, &pair->text_bytes, file->text_path, DIP_PAIR_MAX_TEXT_BYTES,
                         kind);
    if (files->templates.lines.n > 0)
        return dip_templates_fill(&pair->text, &pair->text_bytes, &files->templates,
                                  files->classes.items[file->label], index);
    if (!file->text) return DIP_OK;
    pair->text = strdup(file->text);
    pair->text_bytes = strlen(file->text);
    return pair->text ? DIP_OK : dip_pairs_no_memory(file->image_path);
}

static dip_status load_parts(const dip_pair_files *files, dip_pair *pair, int64_t index,
                             dip_fault_kind *kind)
{
    const dip_pair_file *file = &files->items[index];
    char *bytes = NULL;
    dip_status status =
        read_file(&bytes, &pair->image_bytes, file->image_path, DIP_PAIR_MAX_IMAGE_BYTES, kind);
    pair->image = (uint8_t *)bytes;
    DIP_TRY(status);
    const char *extension;
    DIP_TRY(dip_pair_image_kind(&extension, pair, kind));
    pair->extension = strdup(extension);
    if (!pair->extension) return dip_pairs_no_memory(file->image_path);
    pair->label = file->label;
    return load_captions(files, pair, index, kind);
}

static dip_status load_file(const void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind)
{
    const dip_pair_files *files = state;
    dip_status status = load_parts(files, pair, index, kind);
    int64_t line = files->items[index].line;
    if (status == DIP_FORMAT && line > 0)
        return dip_fail_prefix(status, "line %" PRId64 ": ", line);
    return status;
}

dip_status dip_pairs_from_files(dip_pairs **pairs, dip_pair_files *files)
{
    dip_pair_files *state = malloc(sizeof *state);
    if (!state) {
        dip_pair_files_free(files);
        return dip_pairs_no_memory("pairs");
    }
    *state = *files;
    *files = (dip_pair_files){0};
    return dip_pairs_make(pairs, &(dip_pairs){.n = (int64_t)state->n,
                                              .state = state,
                                              .name = file_name,
                                              .load = load_file,
                                              .digest = digest_files,
                                              .close = close_files,
                                              .classes = &state->classes});
}

/* All sources. */

dip_status dip_pairs_make(dip_pairs **pairs, const dip_pairs *source)
{
    *pairs = malloc(sizeof **pairs);
    if (!*pairs) {
        source->close(source->state);
        return dip_pairs_no_memory("pairs");
    }
    **pairs = *source;
    return DIP_OK;
}

void dip_pairs_close(dip_pairs *pairs)
{
    if (!pairs) return;
    pairs->close(pairs->state);
    free(pairs);
}

int64_t dip_pairs_count(const dip_pairs *pairs)
{
    return pairs->n;
}

char *dip_pairs_name(const dip_pairs *pairs, int64_t index)
{
    return pairs->name(pairs->state, index);
}

dip_status dip_pairs_digest(dip_digest *digest, const dip_pairs *pairs)
{
    *digest = dip_digest_number((dip_digest){0}, pairs->n);
    for (int64_t i = 0; i < pairs->n; i++) {
        char *name = dip_pairs_name(pairs, i);
        if (!name) return dip_pairs_no_memory("pairs");
        *digest = dip_digest_text(*digest, name);
        free(name);
    }
    if (pairs->digest) *digest = pairs->digest(pairs->state, *digest);
    return DIP_OK;
}

const dip_string_list *dip_pairs_classes(const dip_pairs *pairs)
{
    return pairs->classes && pairs->classes->n_items > 0 ? pairs->classes : NULL;
}

dip_status dip_pairs_load(const dip_pairs *pairs, dip_pair *pair, int64_t index,
                          dip_fault_kind *kind)
{
    *pair = (dip_pair){.label = -1};
    dip_status status = pairs->load(pairs->state, pair, index, kind);
    if (status != DIP_OK) dip_pair_free(pair);
    return status;
}

void dip_pair_free(dip_pair *pair)
{
    free(pair->extension);
    free(pair->image);
    free(pair->text);
    for (size_t i = 0; i < pair->n_members; i++) {
        free(pair->members[i].extension);
        free(pair->members[i].data);
    }
    free(pair->members);
    *pair = (dip_pair){.label = -1};
}
