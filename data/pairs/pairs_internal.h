/* pairs_internal.h - what the sources of pairs share: one small table of functions each, lists of
 * image files, rows that are grouped into such lists, caption templates. */
#ifndef DIP_DATA_PAIRS_INTERNAL_H
#define DIP_DATA_PAIRS_INTERNAL_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "data/pairs/pairs.h"

struct dip_pairs {
    int64_t n;
    void *state;
    char *(*name)(const void *state, int64_t index);
    dip_status (*load)(const void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind);
    dip_digest (*digest)(const void *state, dip_digest start); /* beyond the names; may be NULL */
    void (*close)(void *state);                                /* accepts any half-open state */
    const dip_string_list *classes;                            /* in the state; may be NULL */
};

#define DIP_PAIR_MAX_IMAGE_BYTES ((size_t)256 << 20)
enum { DIP_PAIR_MAX_TEXT_BYTES = 1 << 20 };

dip_status dip_pairs_no_memory(const char *path);

/* The status of a pair after reading its file, by errno as that left it: a file that cannot be read
 * costs one pair (DIP_FORMAT); where descriptors run out good ones would be lost, so the run stops.
 */
dip_status dip_pair_read_status(dip_status status);

/* Make a source of `state`, which is closed when that fails. */
dip_status dip_pairs_make(dip_pairs **pairs, const dip_pairs *source);

/* The extension that the image's first bytes ask for. DIP_FORMAT: neither JPEG, PNG nor WebP. */
dip_status dip_pair_image_kind(const char **extension, const dip_pair *pair, dip_fault_kind *kind);

/* Caption templates (pairs_templates.c). */

/* Lines of a small text file: blanks at the ends and empty lines gone. */
typedef struct dip_line_list {
    char *text;
    char **items; /* into text */
    size_t n;
} dip_line_list;

dip_status dip_lines_read(dip_line_list *list, const char *path);
void dip_lines_free(dip_line_list *list); /* a zeroed struct is fine */

typedef struct dip_templates {
    dip_line_list lines; /* none: no captions */
    int captions_per_image;
    uint64_t seed;
} dip_templates;

/* `fallback`: the one template when no file is given; NULL: then there are no captions. */
dip_status dip_templates_open(dip_templates *templates, const dip_template_options *options,
                              const char *fallback);
void dip_templates_free(dip_templates *templates);
/* The captions of image `index`, one a line; malloc'd. */
dip_status dip_templates_fill(char **text, size_t *n_bytes, const dip_templates *templates,
                              const char *class_name, int64_t index);

/* Lists of image files (pairs.c). */

/* An image file and its captions, in a file or in memory. */
typedef struct dip_pair_file {
    char *image_path;
    size_t name_at;  /* where its name begins in image_path */
    char *text_path; /* NULL: text */
    char *text;      /* NULL too: from the templates, or none */
    int64_t line;    /* of the table that names the image; 0: there is none */
    int64_t label;   /* -1: none */
} dip_pair_file;

/* What a list of files is made of; dip_pairs_from_files takes it over, also when it fails. */
typedef struct dip_pair_files {
    dip_pair_file *items;
    size_t n;
    dip_string_list classes;
    dip_templates templates;
} dip_pair_files;

dip_status dip_pairs_from_files(dip_pairs **pairs, dip_pair_files *files);
void dip_pair_files_free(dip_pair_files *files);

/* Folders (pairs_folder.c). */

typedef struct dip_path_list {
    char **items;
    size_t n, capacity;
} dip_path_list;

/* All regular files under `folder`, sorted; `root` gets its path without slashes at the end. */
dip_status dip_paths_find(dip_path_list *files, char **root, const char *folder);
void dip_paths_free(dip_path_list *list);
bool dip_path_is_image(const char *path); /* by its extension: jpg, jpeg, png, webp */
/* Is it an image of a kind this build does not read? */
bool dip_path_is_other_image(const char *path);

/* Rows: (image path, caption) in any order, grouped by image (pairs_rows.c). */

typedef struct dip_pair_row {
    const char *image, *caption;
    int64_t place; /* groups stand in the order of their first rows' places */
    int64_t line;  /* for messages; 0: none */
} dip_pair_row;

typedef struct dip_pair_rows {
    dip_pair_row *items;
    size_t n, capacity;
    struct text_block *texts; /* what dip_pair_rows_keep copied */
} dip_pair_rows;

/* A copy that lives as long as the rows. NULL only without memory. */
char *dip_pair_rows_keep(dip_pair_rows *rows, const char *text);
/* Check the caption (cleaned in place) and add the row, or tell `lost` what is wrong at `where`. */
dip_status dip_pair_rows_add(dip_pair_rows *rows, const char *image, char *caption, int64_t place,
                             int64_t line, const char *where, dip_pairs_lost_fn *lost,
                             void *context);
/* Relative paths are taken from `folder`. With `short_names` the folder is no part of names. */
dip_status dip_pair_rows_group(dip_pair_files *files, dip_pair_rows *rows, const char *folder,
                               bool short_names);
void dip_pair_rows_free(dip_pair_rows *rows);
/* `images`, or else the folder that `path` is in; malloc'd. */
dip_status dip_images_folder(char **folder, const char *path, const char *images);

#endif
