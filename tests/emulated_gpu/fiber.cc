/* Switching costs a few nanoseconds where it is written by hand (x86-64); elsewhere swapcontext
 * does it with a system call. AddressSanitizer is told of every switch, since it looks at stacks.
 */
#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "asan.h"
#ifdef EMULATED_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) || defined(EMULATED_UCONTEXT)
#include <ucontext.h>
#define EMULATED_BY_UCONTEXT 1
#endif

namespace
{

/* Where a switch leaves off and goes on. */
#ifdef EMULATED_BY_UCONTEXT
typedef ucontext_t context;
#else
typedef void *context; /* the stack pointer: everything else is on the stack */
#endif

#ifdef EMULATED_ASAN
constexpr size_t stack_bytes = 512 << 10;
#else
constexpr size_t stack_bytes = 128 << 10;
#endif

} // namespace

namespace emulated
{

class fiber
{
  public:
    context at;
    unsigned char *mapping, *stack;
    size_t n_mapped;
    void (*loop)();
};

} // namespace emulated

namespace
{

using emulated::fiber;

fiber *running;
context outside; /* where fiber_run was called */
#ifdef EMULATED_ASAN
bool comes_from_outside; /* the next to arrive in a fiber */
const void *outside_stack;
size_t outside_stack_bytes;
#endif

#ifdef EMULATED_BY_UCONTEXT
void switch_context(context *save, context *load)
{
    swapcontext(save, load);
}
#else
extern "C" void emulated_switch(context *save, context load);
asm(R"(
    .text
    .p2align 4
    .type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulated_switch, .-emulated_switch
)");

void switch_context(context *save, context *load)
{
    emulated_switch(save, *load);
}
#endif

/* After every switch into a fiber. */
void arrive([[maybe_unused]] void *fake_stack)
{
#ifdef EMULATED_ASAN
    const void *old_stack;
    size_t old_stack_bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &old_stack, &old_stack_bytes);
    if (comes_from_outside) {
        outside_stack = old_stack;
        outside_stack_bytes = old_stack_bytes;
        comes_from_outside = false;
    }
#endif
}

/* The bottom frame of every fiber; it is never returned from. */
extern "C" void emulated_fiber_main()
{
    arrive(nullptr);
    running->loop();
    std::abort();
}

void make_context(fiber *f, unsigned char *top)
{
#ifdef EMULATED_BY_UCONTEXT
    getcontext(&f->at);
    f->at.uc_stack.ss_sp = f->stack;
    f->at.uc_stack.ss_size = (size_t)(top - f->stack);
    f->at.uc_link = nullptr;
    makecontext(&f->at, emulated_fiber_main, 0);
#else
    /* What emulated_switch pops: six registers, then where it returns to. Above that a zero in
     * place of a return address, which also gives the alignment that a function finds on entry. */
    void **stack_pointer = reinterpret_cast<void **>(top);
    *--stack_pointer = nullptr;
    *--stack_pointer = reinterpret_cast<void *>(emulated_fiber_main);
    for (int i = 0; i < 6; i++) *--stack_pointer = nullptr;
    f->at = stack_pointer;
#endif
}

fiber *make_fiber(void (*loop)(), size_t n_before)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), n_mapped = page + stack_bytes;
    void *memory = mmap(nullptr, n_mapped, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        std::fputs("emulated GPU: no memory for the stack of a thread\n", stderr);
        std::abort();
    }
    fiber *f = new fiber();
    f->mapping = static_cast<unsigned char *>(memory);
    f->n_mapped = n_mapped;
    f->stack = f->mapping + page;
    f->loop = loop;
    /* Stacks that all ended at the same place of a page would share a few sets of the cache. */
    make_context(f, f->stack + stack_bytes - n_before * 448 % page / 16 * 16);
    return f;
}

class store
{
  public:
    std::vector<fiber *> all, idle;
    ~store()
    {
        for (fiber *f : all) {
            munmap(f->mapping, f->n_mapped);
            delete f;
        }
    }
};
thread_local store fibers;

} // namespace

namespace emulated
{

fiber *fiber_take(void (*loop)())
{
    store &mine = fibers;
    if (mine.idle.empty()) {
        mine.all.push_back(make_fiber(loop, mine.all.size()));
        return mine.all.back();
    }
    fiber *f = mine.idle.back();
    mine.idle.pop_back();
    return f;
}

void fiber_give_back(fiber *idle)
{
    fibers.idle.push_back(idle);
}

void fiber_run(fiber *to)
{
    running = to;
#ifdef EMULATED_ASAN
    void *fake_stack;
    comes_from_outside = true;
    __sanitizer_start_switch_fiber(&fake_stack, to->stack, stack_bytes);
#endif
    switch_context(&outside, &to->at);
#ifdef EMULATED_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    running = nullptr;
}

void fiber_switch(fiber *to)
{
    fiber *self = running;
    void *fake_stack = nullptr;
    if (to == self) return;
    running = to;
#ifdef EMULATED_ASAN
    __sanitizer_start_switch_fiber(&fake_stack, to ? to->stack : outside_stack,
                                   to ? stack_bytes : outside_stack_bytes);
#endif
    switch_context(&self->at, to ? &to->at : &outside);
    arrive(fake_stack);
}

fiber *fiber_self()
{
    return running;
}

} // namespace emulated
