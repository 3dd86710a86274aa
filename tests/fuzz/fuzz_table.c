/* CSV and TSV: every row has the header's fields, and lines only go forward. */
#include "fuzz/fuzz.h"

#include <stdbool.h>
#include <string.h>

#include "data/pairs/table.h"

static void read_rows(const char *path, char separator, size_t n)
{
    dip_table *table;
    size_t caption, none;
    char *const *fields;
    int64_t line = 0;
    if (dip_table_open(&table, path, separator) != DIP_OK) return;
    bool has_caption = dip_table_column(table, &caption, "caption") == DIP_OK;
    FUZZ_CHECK(has_caption || dip_table_column(table, &none, "caption") == DIP_CONFIG);
    for (dip_status status; (status = dip_table_next(table, &fields)) != DIP_END;) {
        FUZZ_CHECK(status == DIP_OK || status == DIP_FORMAT);
        FUZZ_CHECK(dip_table_line(table) > line && dip_table_line(table) <= (int64_t)n + 1);
        line = dip_table_line(table);
        if (status != DIP_OK || !has_caption) continue;
        FUZZ_CHECK(strlen(fields[caption]) <= n);
        fuzz_canary(fields[caption], strlen(fields[caption]));
    }
    dip_table_close(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *path = fuzz_file("table.csv", data, n);
    read_rows(path, ',', n);
    read_rows(path, '\t', n);
    return 0;
}
