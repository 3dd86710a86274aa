/* interrupt.h - a request to stop (Ctrl-C, a scheduler's SIGTERM, a closed terminal), to be asked
 * for where work can end cleanly.
 *
 * Usage:   dip_interrupt_catch; dip_interrupt_requested between two pieces of work;
 *          dip_interrupt_release. One at a time in a program.
 * Threads: dip_interrupt_requested from any.                                               */
#ifndef DIP_TOOLS_INTERRUPT_H
#define DIP_TOOLS_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

enum { DIP_N_STOP_SIGNALS = 3 };
typedef struct dip_interrupt {
    struct sigaction before[DIP_N_STOP_SIGNALS];
} dip_interrupt;

void dip_interrupt_catch(dip_interrupt *interrupt);
void dip_interrupt_release(const dip_interrupt *interrupt);
bool dip_interrupt_requested(void);

#endif
