/* table.h - rows of a CSV or TSV file with a header line.
 *
 * Fields may be quoted as in RFC 4180 ("" inside quotes is one quote; separators and newlines
 * may stand inside quotes). Lines end in LF or CRLF; empty lines are skipped; a BOM is ignored.
 *
 * Usage:   dip_table_open; dip_table_column for each name; dip_table_next until DIP_END;
 *          dip_table_close.
 * Owns:    the text; fields are valid until close.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT: too large (4 GiB), no header, a NUL byte; from
 *          dip_table_next a row of another width or an open quote, with its line; the next call
 *          goes on after it.                                                              */
#ifndef DIP_DATA_TABLE_H
#define DIP_DATA_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct dip_table dip_table;

dip_status dip_table_open(dip_table **table, const char *path, char separator);
void dip_table_close(dip_table *table); /* accepts NULL */

/* Number of the column with this name. DIP_CONFIG naming the columns there are. */
dip_status dip_table_column(const dip_table *table, size_t *column, const char *name);

/* fields[column] is NUL-terminated. */
dip_status dip_table_next(dip_table *table, char *const **fields);

/* The line (from 1) where the row of the last dip_table_next started. */
int64_t dip_table_line(const dip_table *table);

#endif
