/* Which kind of input it is, and which options go with it. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/pattern.h"
#include "data/shard/shard_names.h"
#include "tools/shard.h"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

bool shard_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool holds_shards(const char *folder)
{
    dip_string_list paths = {0};
    bool found = dip_pattern_expand(&paths, folder) == DIP_OK && paths.n_items > 0;
    dip_string_list_free(&paths);
    return found;
}

/* NULL: its text has to be looked at. */
static const char *format_by_name(const char *input)
{
    if (dip_path_is_dir(input)) return holds_shards(input) ? "shards" : "folder";
    if (ends_with(input, ".tsv") || ends_with(input, ".csv")) return "table";
    if (ends_with(input, ".jsonl") || ends_with(input, ".ndjson")) return "jsonl";
    if (ends_with(input, ".tar") || strstr(input, "::")) return "shards";
    return ends_with(input, ".json") ? NULL : "idx";
}

static dip_status find_format(const char **format, const shard_options *o)
{
    bool given = strcmp(o->input_format, "auto") != 0;
    *format = given ? o->input_format : format_by_name(o->input);
    if (*format) return DIP_OK;
    dip_json_kind kind;
    DIP_TRY(dip_pairs_json_kind(&kind, o->input));
    *format = kind == DIP_JSON_COCO ? "coco" : "karpathy";
    return DIP_OK;
}

/* An option that is given although the format has no use for it is a mistake. */
static dip_status check_options(const shard_options *o, const char *format)
{
    const struct {
        const char *option, *value, *formats;
    } rows[] = {
        {"--labels", o->labels, "idx"},
        {"--classnames", o->classnames, "idx"},
        {"--templates", o->templates, "idx classes"},
        {"--karpathy-split", o->karpathy_split, "karpathy"},
        {"--images", o->images, "table jsonl coco karpathy"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].value && !strstr(rows[i].formats, format))
            return dip_fail(DIP_CONFIG, "%s goes with input of the format %s; %s is read as %s",
                            rows[i].option, rows[i].formats, o->input, format);
    return DIP_OK;
}

static dip_status open_table(dip_pairs **pairs, const shard_options *o, shard_losses *lost)
{
    char separator = ends_with(o->input, ".csv") ? ',' : '\t';
    const char *given = o->csv_separator;
    if (given && (strcasecmp(given, "tab") == 0 || strcmp(given, "\\t") == 0))
        separator = '\t';
    else if (given && strlen(given) == 1 && !strchr("\"\n\r", given[0]))
        separator = given[0];
    else if (given)
        return dip_fail(DIP_CONFIG, "--csv-separator: '%s' is not one character (or 'tab')", given);
    return dip_pairs_open_table(pairs, o->input, separator, o->csv_img_key, o->csv_caption_key,
                                o->images, shard_lose, lost);
}

static dip_status open_idx(dip_pairs **pairs, const shard_options *o,
                           const dip_template_options *templates)
{
    if (!dip_path_exists(o->input))
        return dip_fail(DIP_CONFIG, "--input %s: there is no such file or folder", o->input);
    if (!o->labels || !o->classnames)
        return dip_fail(DIP_CONFIG,
                        "%s is no folder, table, JSON or shard; to read it as IDX images --labels "
                        "and --classnames are needed",
                        o->input);
    return dip_pairs_open_idx(pairs, &(dip_idx_options){.images = o->input,
                                                        .labels = o->labels,
                                                        .class_names = o->classnames,
                                                        .templates = *templates});
}

/* A shard that is read must not be one that is written over. */
static dip_status check_apart(const dip_string_list *paths, const char *pattern)
{
    dip_shard_names names;
    DIP_TRY(dip_shard_names_parse(&names, pattern));
    dip_status status = DIP_OK;
    for (size_t i = 0; i < paths->n_items && status == DIP_OK; i++) {
        const char *slash = strrchr(paths->items[i], '/');
        const char *name = slash ? slash + 1 : paths->items[i];
        size_t name_bytes;
        if (!dip_shard_names_match(&names, &name_bytes, name, false)) continue;
        char *there = dip_path_join(names.folder, name);
        if (!there)
            status = dip_fail(DIP_NOMEM, "no memory for a path");
        else if (shard_same_file(there, paths->items[i]))
            status = dip_fail(DIP_CONFIG, "%s is read, and --output '%s' would write over it",
                              paths->items[i], pattern);
        free(there);
    }
    dip_shard_names_free(&names);
    return status;
}

static dip_status open_shards(dip_pairs **pairs, const shard_options *o, const shard_plan *plan,
                              shard_losses *lost)
{
    dip_string_list paths;
    DIP_TRY(dip_pattern_expand_files(&paths, o->input));
    dip_status status = DIP_OK;
    for (int i = 0; i < plan->n_outputs && status == DIP_OK; i++)
        status = check_apart(&paths, plan->outputs[i].pattern);
    if (status == DIP_OK) status = dip_pairs_open_shards(pairs, &paths, shard_lose, lost);
    dip_string_list_free(&paths);
    return status;
}

dip_status shard_open_input(dip_pairs **pairs, const shard_options *o, const shard_plan *plan,
                            shard_losses *lost)
{
    const char *format;
    DIP_TRY(find_format(&format, o));
    DIP_TRY(check_options(o, format));
    dip_template_options templates = {.path = o->templates,
                                      .captions_per_image = (int)o->captions_per_image,
                                      .seed = (uint64_t)o->seed};
    if (strcmp(format, "folder") == 0)
        return dip_pairs_open_folder(pairs, o->input, shard_lose, lost);
    if (strcmp(format, "classes") == 0)
        return dip_pairs_open_classes(pairs, o->input, &templates, shard_lose, lost);
    if (strcmp(format, "table") == 0) return open_table(pairs, o, lost);
    if (strcmp(format, "jsonl") == 0)
        return dip_pairs_open_jsonl(pairs, o->input, o->image_key, o->caption_key, o->images,
                                    shard_lose, lost);
    if (strcmp(format, "coco") == 0)
        return dip_pairs_open_coco(pairs, o->input, o->images, shard_lose, lost);
    if (strcmp(format, "karpathy") == 0)
        return dip_pairs_open_karpathy(pairs, o->input, o->images, o->karpathy_split, shard_lose,
                                       lost);
    if (strcmp(format, "shards") == 0) return open_shards(pairs, o, plan, lost);
    return open_idx(pairs, o, &templates);
}
