#include "data/account.h"

#include <stdlib.h>

dip_status dip_account_open(dip_account *account, int64_t n_shards)
{
    *account = (dip_account){.n_shards = n_shards};
    account->shards = calloc((size_t)n_shards + 1, sizeof *account->shards);
    return account->shards ? DIP_OK
                           : dip_fail(DIP_NOMEM, "no memory for the account of %lld shards",
                                      (long long)n_shards);
}

void dip_account_close(dip_account *account)
{
    free(account->shards);
    *account = (dip_account){0};
}

void dip_account_add_up(dip_account *account)
{
    dip_account_row *total = &account->total;
    *total = (dip_account_row){0};
    for (int64_t s = 0; s < account->n_shards; s++) {
        const dip_account_row *row = &account->shards[s];
        total->read += row->read;
        total->trained += row->trained;
        total->buffered += row->buffered;
        for (int kind = 0; kind < DIP_N_DROP_KINDS; kind++)
            total->dropped[kind] += row->dropped[kind];
    }
}

int64_t dip_account_dropped(const dip_account_row *row)
{
    int64_t n = 0;
    for (int kind = 0; kind < DIP_N_DROP_KINDS; kind++) n += row->dropped[kind];
    return n;
}

const char *dip_drop_text(int kind)
{
    return kind == DIP_DROP_UNFINISHED ? "last batch not full"
                                       : dip_fault_text((dip_fault_kind)kind);
}
