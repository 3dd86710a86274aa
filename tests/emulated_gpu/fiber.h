/* fiber.h - functions that can be left in the middle and gone on with later.
 *
 * Usage:   fiber_take; fiber_run from outside; inside, fiber_switch to another fiber or to the
 *          place where fiber_run was called. A fiber's function never returns: what has no more to
 *          do gives itself back and switches away.
 * Owns:    a stack each, with a page below that may not be touched. Fibers are kept for the next
 *          user; each thread of the operating system has its own store of them.
 * Threads: one at a time in the whole process runs fibers (the runtime's lock sees to it).      */
#ifndef EMULATED_GPU_FIBER_H
#define EMULATED_GPU_FIBER_H

namespace emulated
{

class fiber;

/* One that runs `loop`; if it is not new, it goes on after its last fiber_switch. All users have
 * the same loop. */
fiber *fiber_take(void (*loop)());
void fiber_give_back(fiber *idle);
void fiber_run(fiber *to);    /* until a fiber switches to nullptr */
void fiber_switch(fiber *to); /* in a fiber */
fiber *fiber_self();

} // namespace emulated

#endif
