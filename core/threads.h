/* threads.h - how many threads are worth starting. */
#ifndef DIP_CORE_THREADS_H
#define DIP_CORE_THREADS_H

/* Cores this process may run on (affinity respected), at least 1. From any thread. */
int dip_core_count(void);

#endif
