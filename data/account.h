/* account.h - what became of the samples that were read: read = trained + buffered + dropped, for
 * every shard and for all together.
 *
 * read counts a sample each time it is read, in every epoch anew; one that was decoded ahead and is
 * thrown away unlooked at (a new epoch begins) was not read. trained: it was in a batch. buffered:
 * it is decoded and waits. dropped: it was bad (the kinds of data/faults.h), or good and belonged
 * to a last batch that could not be filled.
 *
 * Usage:   dip_account_open, dip_loader_account fills it in, dip_account_close.
 * Owns:    the rows.
 * Errors:  DIP_NOMEM.                                                                          */
#ifndef DIP_DATA_ACCOUNT_H
#define DIP_DATA_ACCOUNT_H

#include <stdint.h>

#include "core/status.h"
#include "data/faults.h"

/* Why a sample was dropped: a dip_fault_kind, or: */
enum { DIP_DROP_UNFINISHED = DIP_N_FAULT_KINDS, DIP_N_DROP_KINDS };

typedef struct dip_account_row {
    int64_t read, trained, buffered, dropped[DIP_N_DROP_KINDS];
} dip_account_row;

typedef struct dip_account {
    dip_account_row total;
    dip_account_row *shards; /* [n_shards] */
    int64_t n_shards;
} dip_account;

dip_status dip_account_open(dip_account *account, int64_t n_shards);
void dip_account_close(dip_account *account); /* a zeroed struct is fine */

/* total = the sum of the shards. */
void dip_account_add_up(dip_account *account);

int64_t dip_account_dropped(const dip_account_row *row); /* for whatever reason */
const char *dip_drop_text(int kind);

#endif
