#include <inttypes.h>
#include <stdlib.h>

#include "core/file.h"
#include "data/pairs/pairs_internal.h"
#include "data/pairs/table.h"

static dip_status read_rows(dip_pair_rows *rows, dip_table *table, const char *path,
                            size_t image_column, size_t caption_column, dip_pairs_lost_fn *lost,
                            void *context)
{
    char *const *fields;
    dip_status status;
    while ((status = dip_table_next(table, &fields)) != DIP_END) {
        int64_t line = dip_table_line(table);
        char *where = dip_format("%s: line %" PRId64, path, line);
        if (!where) return dip_pairs_no_memory(path);
        if (status == DIP_FORMAT) {
            lost(context, DIP_FAULT_UNREADABLE, where, dip_error());
            status = DIP_OK;
        } else {
            status = dip_pair_rows_add(rows, fields[image_column], fields[caption_column], line,
                                       line, where, lost, context);
        }
        free(where);
        DIP_TRY(status);
    }
    return DIP_OK;
}

dip_status dip_pairs_open_table(dip_pairs **out, const char *path, char separator,
                                const char *image_column, const char *caption_column,
                                const char *images, dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    dip_status status = DIP_OK;
    dip_pair_rows rows = {0};
    dip_pair_files files;
    size_t image_at, caption_at;
    char *folder = NULL;
    dip_table *table = NULL;
    DIP_TRY_GOTO(dip_images_folder(&folder, path, images));
    DIP_TRY_GOTO(dip_table_open(&table, path, separator));
    DIP_TRY_GOTO(dip_table_column(table, &image_at, image_column));
    DIP_TRY_GOTO(dip_table_column(table, &caption_at, caption_column));
    DIP_TRY_GOTO(read_rows(&rows, table, path, image_at, caption_at, lost, context));
    DIP_TRY_GOTO(dip_pair_rows_group(&files, &rows, folder, images != NULL));
    status = dip_pairs_from_files(out, &files);
fail:
    dip_pair_rows_free(&rows);
    dip_table_close(table);
    free(folder);
    return status;
}
