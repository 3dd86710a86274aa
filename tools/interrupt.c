#include "tools/interrupt.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_bool stop_requested; /* lock-free: a handler may set it, and threads read it */
static const int stop_signals[DIP_N_STOP_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

static void request_stop(int signal_number)
{
    (void)signal_number;
    atomic_store(&stop_requested, true);
}

/* The handler stays for a second signal: timeout(1) sends two at once, and what is left to do, the
 * clean-up, is short. A signal that is ignored (nohup) stays ignored. */
void dip_interrupt_catch(dip_interrupt *interrupt)
{
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    atomic_store(&stop_requested, false);
    for (int i = 0; i < DIP_N_STOP_SIGNALS; i++) {
        sigaction(stop_signals[i], NULL, &interrupt->before[i]);
        if (interrupt->before[i].sa_handler != SIG_IGN) sigaction(stop_signals[i], &action, NULL);
    }
}

void dip_interrupt_release(const dip_interrupt *interrupt)
{
    for (int i = 0; i < DIP_N_STOP_SIGNALS; i++)
        sigaction(stop_signals[i], &interrupt->before[i], NULL);
}

bool dip_interrupt_requested(void)
{
    return atomic_load(&stop_requested);
}
