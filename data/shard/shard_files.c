#include "data/shard/shard_files.h"

#include <pthread.h>
#include <stdlib.h>

enum { N_KEPT = 16 };

typedef struct kept_shard {
    dip_shard *shard; /* NULL: the place is free */
    uint32_t number;
    int n_borrowers;
    uint64_t last_used;
} kept_shard;

struct dip_shard_files {
    pthread_mutex_t lock;
    kept_shard kept[N_KEPT];
    uint64_t n_uses;
};

dip_status dip_shard_files_open(dip_shard_files **files)
{
    *files = calloc(1, sizeof **files);
    if (!*files) return dip_fail(DIP_NOMEM, "no memory to keep shards open");
    pthread_mutex_init(&(*files)->lock, NULL);
    return DIP_OK;
}

void dip_shard_files_close(dip_shard_files *files)
{
    if (!files) return;
    for (int i = 0; i < N_KEPT; i++) dip_shard_close(files->kept[i].shard);
    pthread_mutex_destroy(&files->lock);
    free(files);
}

static dip_shard *borrow_kept(dip_shard_files *files, uint32_t number)
{
    dip_shard *found = NULL;
    pthread_mutex_lock(&files->lock);
    for (int i = 0; i < N_KEPT && !found; i++) {
        kept_shard *kept = &files->kept[i];
        if (!kept->shard || kept->number != number) continue;
        kept->n_borrowers++;
        kept->last_used = ++files->n_uses;
        found = kept->shard;
    }
    pthread_mutex_unlock(&files->lock);
    return found;
}

/* Keep it, borrowed once, in the place of the one that nobody has used for longest. All in use: it
 * lives as long as its borrower. */
static void keep(dip_shard_files *files, dip_shard *shard, uint32_t number)
{
    kept_shard *place = NULL;
    dip_shard *old = NULL;
    pthread_mutex_lock(&files->lock);
    for (int i = 0; i < N_KEPT; i++) {
        kept_shard *kept = &files->kept[i];
        if (kept->n_borrowers == 0 && (!place || kept->last_used < place->last_used)) place = kept;
    }
    if (place) {
        old = place->shard;
        *place = (kept_shard){shard, number, 1, ++files->n_uses};
    }
    pthread_mutex_unlock(&files->lock);
    dip_shard_close(old);
}

dip_status dip_shard_files_borrow(dip_shard_files *files, const dip_shard **out, uint32_t number,
                                  const char *path)
{
    dip_shard *shard = borrow_kept(files, number);
    if (!shard) {
        /* Not under the lock: opening may take long, and a shard opened twice does no harm. */
        DIP_TRY(dip_shard_open_unread(&shard, path));
        keep(files, shard, number);
    }
    *out = shard;
    return DIP_OK;
}

void dip_shard_files_return(dip_shard_files *files, const dip_shard *shard)
{
    bool kept = false;
    pthread_mutex_lock(&files->lock);
    for (int i = 0; i < N_KEPT && !kept; i++) {
        if (files->kept[i].shard != shard) continue;
        files->kept[i].n_borrowers--;
        kept = true;
    }
    pthread_mutex_unlock(&files->lock);
    if (!kept) dip_shard_close((dip_shard *)(uintptr_t)shard);
}
