/* threads.h - a bounded first-in first-out queue for the loader, and the core count.
 *
 * Threads: every function may be called from any thread. Closing a queue wakes everyone:
 *          push then fails, pop drains what is left and then returns DIP_END.            */
#ifndef DIP_CORE_THREADS_H
#define DIP_CORE_THREADS_H

#include <stddef.h>

#include "core/status.h"

typedef struct dip_queue dip_queue;

dip_status dip_queue_open(dip_queue **queue, size_t capacity);
dip_status dip_queue_push(dip_queue *queue,
                          void *item); /* blocks while full; DIP_END when closed */
dip_status dip_queue_pop(dip_queue *queue,
                         void **item);  /* blocks while empty; DIP_END when closed */
void dip_queue_shut(dip_queue *queue);  /* no more pushes */
void dip_queue_close(dip_queue *queue); /* frees; nobody may wait; accepts NULL */

/* Cores this process may run on (affinity respected), at least 1. */
int dip_core_count(void);

#endif
