/* The scheduler. A warp is run until none of its lanes can go on; then they have all met at one
 * warp-wide call, or wait for the block, or have returned, and everything else is a mistake that is
 * reported. A lane that stops switches to the next lane itself, and a thread that has returned
 * leaves its fiber to the next thread, so that the scheduler is entered once a meeting. */
#include "grid.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fiber.h"
#include "poison.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace
{

using emulated::call;

enum { LANES = 32, N_PERMUTATIONS = 64 };
enum class order { forward, reverse, shuffle };
enum class state { runnable, at_call, at_barrier, returned };

struct pending_copy {
    void *to;
    const void *from;
    size_t n_bytes;
    bool valid;
    int group;
};

struct thread {
    emulated::fiber *runs_on;
    state is;
    call at;
    void *operands;
    void (*combine)(void *const operands[LANES]);
    int buffer; /* of the warp's two, for the next exchange */
    int n_committed;
    std::vector<pending_copy> copies;
};

struct warp {
    uint64_t values[2][LANES];
};

/* Small and fast; good enough to disturb an order. */
struct random_source {
    uint64_t x;
    uint32_t below(uint32_t n)
    {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        return (uint32_t)((x >> 32) * n >> 32);
    }
};

/* ---- what is running -------------------------------------------------------------------- */

const emulated::kernel_launch *kernel; /* NULL: none */
order run_order;
random_source random_numbers;
std::vector<thread> threads;
std::vector<warp> warps;
int n_threads, current = -1, current_warp = -1; /* current thread: -1 in the scheduler */
unsigned char lane_orders[N_PERMUTATIONS][LANES];

/* Shared memory whose size the launch says, and a band behind it that nobody may touch. */
constexpr size_t shared_guard_bytes = 1024;
alignas(1024) unsigned char shared_memory[emulated::max_shared_bytes + shared_guard_bytes];

order chosen_order()
{
    const char *name = std::getenv("DIPTYCH_EMULATED_ORDER");
    if (!name || std::strcmp(name, "shuffle") == 0) return order::shuffle;
    if (std::strcmp(name, "forward") == 0) return order::forward;
    if (std::strcmp(name, "reverse") == 0) return order::reverse;
    std::fprintf(stderr, "DIPTYCH_EMULATED_ORDER=%s: forward, reverse or shuffle\n", name);
    std::abort();
}

void make_lane_orders()
{
    for (auto &lanes : lane_orders) {
        for (int i = 0; i < LANES; i++) {
            const int j = (int)random_numbers.below((uint32_t)i + 1);
            lanes[i] = lanes[j];
            lanes[j] = (unsigned char)i;
        }
    }
}

int lane_order(int choice, int i)
{
    if (run_order == order::forward) return i;
    if (run_order == order::reverse) return LANES - 1 - i;
    return lane_orders[choice][i];
}

uint3 thread_position(int index)
{
    const unsigned i = (unsigned)index, x = blockDim.x, y = blockDim.y;
    if (y == 1 && blockDim.z == 1) return {i, 0, 0};
    return {i % x, i / x % y, i / (x * y)};
}

/* ---- telling ---------------------------------------------------------------------------- */

std::string describe(const thread &t)
{
    char text[300];
    if (t.is == state::runnable) return "running";
    if (t.is == state::returned) return "returned";
    std::snprintf(text, sizeof text, "at %s, %s:%d", t.at.name, t.at.file, t.at.line);
    return text;
}

/* What each lane of a warp does, neighbours that do the same in one line. */
void print_warp(int w)
{
    const int first = w * LANES, end = std::min(first + LANES, n_threads);
    for (int i = first; i < end;) {
        const std::string what = describe(threads[(size_t)i]);
        int next = i + 1;
        while (next < end && describe(threads[(size_t)next]) == what) next++;
        std::fprintf(stderr, "  threads %d to %d: %s\n", i, next - 1, what.c_str());
        i = next;
    }
}

bool same_call(const call &a, const call &b)
{
    return a.line == b.line && a.detail == b.detail &&
           (a.name == b.name || std::strcmp(a.name, b.name) == 0) &&
           (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

/* ---- running ---------------------------------------------------------------------------- */

/* The lanes of a warp in the order in which they run until the next meeting. */
struct {
    int first, n_lanes, choice;
    int at;
} turn;

/* The next lane that can run becomes the current thread; NULL: there is none. */
thread *next_thread()
{
    while (turn.at < LANES) {
        const int lane = lane_order(turn.choice, turn.at++);
        if (lane >= turn.n_lanes) continue;
        thread &t = threads[(size_t)(turn.first + lane)];
        if (t.is != state::runnable) continue;
        current = turn.first + lane;
        threadIdx = thread_position(current);
        return &t;
    }
    current = -1;
    return nullptr;
}

/* What a fiber does: one thread after the other. */
void run_threads()
{
    for (;;) {
        kernel->thread();
        thread &done = threads[(size_t)current];
        done.is = state::returned;
        done.runs_on = nullptr;
        thread *next = next_thread();
        if (next && !next->runs_on) {
            next->runs_on = emulated::fiber_self();
            continue;
        }
        emulated::fiber_give_back(emulated::fiber_self());
        emulated::fiber_switch(next ? next->runs_on : nullptr);
    }
}

/* The fiber of a thread that goes on or begins. */
emulated::fiber *fiber_of(thread *t)
{
    if (t && !t->runs_on) t->runs_on = emulated::fiber_take(run_threads);
    return t ? t->runs_on : nullptr;
}

/* The current thread, whose state says why it stops, lets the others go on. */
void stop_here()
{
    emulated::fiber_switch(fiber_of(next_thread()));
}

/* The lanes of warp w have met: all at the same call? Then they go on. */
void release_warp(int w)
{
    const size_t first = (size_t)w * LANES;
    if ((int)first + LANES > n_threads)
        emulated::stop("a warp-wide call in a warp of %d threads", n_threads - (int)first);
    void *operands[LANES];
    for (size_t i = 0; i < LANES; i++) {
        const thread &t = threads[first + i];
        if (t.is != state::at_call || !same_call(t.at, threads[first].at))
            emulated::stop("the lanes of a warp are not at the same warp-wide call");
        operands[i] = t.operands;
    }
    if (threads[first].combine) threads[first].combine(operands);
    for (size_t i = 0; i < LANES; i++) threads[first + i].is = state::runnable;
}

/* Returns whether the warp can go on; if not, its lanes wait for the block or have returned. */
bool run_warp(int w)
{
    const int first = w * LANES, n_lanes = std::min<int>(LANES, n_threads - first);
    const int choice = run_order == order::shuffle ? (int)random_numbers.below(N_PERMUTATIONS) : 0;
    current_warp = w;
    turn = {first, n_lanes, choice, 0};
    if (thread *t = next_thread()) emulated::fiber_run(fiber_of(t));
    for (int i = 0; i < n_lanes; i++)
        if (threads[(size_t)(first + i)].is == state::at_call) {
            release_warp(w);
            return true;
        }
    return false;
}

/* Run every warp of the list until it cannot go on. In shuffled order, warps take turns. */
void run_warps(std::vector<int> &list)
{
    if (run_order == order::forward)
        std::reverse(list.begin(), list.end()); /* taken from the end */
    while (!list.empty()) {
        size_t at = list.size() - 1;
        if (run_order == order::shuffle) at = random_numbers.below((uint32_t)list.size());
        int n_rounds = run_order == order::shuffle ? 1 + (int)random_numbers.below(16) : -1;
        bool more = true;
        while (more && n_rounds-- != 0) more = run_warp(list[at]);
        if (!more) {
            list[at] = list.back();
            list.pop_back();
            if (run_order != order::shuffle) std::sort(list.begin(), list.end());
            if (run_order == order::forward) std::reverse(list.begin(), list.end());
        }
    }
    current_warp = -1;
}

/* Every thread waits at the block's barrier or has returned. Let those that wait go on; false if
 * none does. */
bool release_block(std::vector<int> &list)
{
    const thread *waits = nullptr;
    for (int i = 0; i < n_threads; i++) {
        const thread &t = threads[(size_t)i];
        if (t.is != state::at_barrier) continue;
        if (!waits) waits = &t;
        if (!same_call(t.at, waits->at))
            emulated::stop("the threads of a block are not at the same __syncthreads");
    }
    for (int i = 0; i < n_threads; i++) {
        thread &t = threads[(size_t)i];
        if (t.is != state::at_barrier) continue;
        t.is = state::runnable;
        if (list.empty() || list.back() != i / LANES) list.push_back(i / LANES);
    }
    return waits != nullptr;
}

void run_block(std::vector<int> &list)
{
    emulated::fill_poison(shared_memory, kernel->shape.shared_bytes);
    for (int i = 0; i < n_threads; i++) {
        thread &t = threads[(size_t)i];
        t.is = state::runnable;
        t.buffer = 0;
        t.n_committed = 0;
        t.copies.clear();
        if (i % LANES == 0) list.push_back(i / LANES);
    }
    do run_warps(list);
    while (release_block(list));
    const long at =
        emulated::damage(shared_memory + kernel->shape.shared_bytes, shared_guard_bytes);
    if (at >= 0) emulated::stop("a write %ld bytes beyond the end of dynamic shared memory", at);
}

} // namespace

namespace emulated
{

void stop(const char *format, ...)
{
    va_list arguments;
    std::fflush(stdout);
    std::fputs("emulated GPU: ", stderr);
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    if (kernel) {
        std::fprintf(stderr, "  kernel %s, grid (%u, %u, %u) of blocks (%u, %u, %u)\n",
                     kernel->name.c_str(), gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y,
                     blockDim.z);
        std::fprintf(stderr, "  block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z);
        if (current >= 0)
            std::fprintf(stderr, ", thread (%u, %u, %u), number %d", threadIdx.x, threadIdx.y,
                         threadIdx.z, current);
        std::fputc('\n', stderr);
        for (int w = 0; w * LANES < n_threads; w++)
            if (current_warp < 0 || w == current_warp) print_warp(w);
    }
    std::abort();
}

void run_grid(const kernel_launch &launch)
{
    const geometry &shape = launch.shape;
    std::vector<int> list;
    run_order = chosen_order();
    random_numbers.x = launch.seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    for (int i = 0; i < 8; i++) random_numbers.below(2);
    if (run_order == order::shuffle) make_lane_orders();
    kernel = &launch;
    gridDim = shape.grid;
    blockDim = shape.block;
    n_threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    if ((int)threads.size() < n_threads) threads.resize((size_t)n_threads);
    if (warps.size() * LANES < threads.size()) warps.resize((threads.size() + LANES - 1) / LANES);
    make_guard(shared_memory + shape.shared_bytes, shared_guard_bytes);

    const uint64_t n_blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    std::vector<uint32_t> blocks(n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++) {
        const uint64_t j = run_order == order::shuffle ? random_numbers.below((uint32_t)i + 1) : i;
        blocks[i] = blocks[j];
        blocks[j] = (uint32_t)i;
    }
    if (run_order == order::reverse) std::reverse(blocks.begin(), blocks.end());
    for (const uint32_t b : blocks) {
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        run_block(list);
    }
    remove_guard(shared_memory + shape.shared_bytes, shared_guard_bytes);
    kernel = nullptr;
}

/* ---- what kernels call ------------------------------------------------------------------- */

int lane_index()
{
    return current % LANES;
}

unsigned char *dynamic_shared()
{
    return shared_memory;
}

void together(const call &where, void *operands, void (*combine)(void *const operands[32]))
{
    thread &t = threads[(size_t)current];
    t.at = where;
    t.operands = operands;
    t.combine = combine;
    t.is = state::at_call;
    stop_here();
}

const uint64_t *exchange(const call &where, unsigned mask, uint64_t value)
{
    thread &t = threads[(size_t)current];
    uint64_t *values = warps[(size_t)(current / LANES)].values[t.buffer];
    if (mask != 0xffffffffu)
        stop("%s:%d: %s with mask %#x: only all lanes together are supported", where.file,
             where.line, where.name, mask);
    values[current % LANES] = value;
    t.buffer ^= 1;
    together(where, nullptr, nullptr);
    return values;
}

void block_barrier(const char *file, int line)
{
    thread &t = threads[(size_t)current];
    t.at = {"__syncthreads", file, line, 0};
    t.is = state::at_barrier;
    stop_here();
}

void copy_async(void *shared, const void *global, size_t n_bytes, bool valid, const char *file,
                int line)
{
    thread &t = threads[(size_t)current];
    if ((uintptr_t)shared % n_bytes != 0)
        stop("%s:%d: cp.async to %p: not a multiple of %zu bytes", file, line, shared, n_bytes);
    if ((uintptr_t)global % n_bytes != 0)
        stop("%s:%d: cp.async from %p: not a multiple of %zu bytes", file, line, global, n_bytes);
    fill_poison(shared, n_bytes);
    t.copies.push_back({shared, global, n_bytes, valid, t.n_committed});
}

void copy_commit()
{
    threads[(size_t)current].n_committed++;
}

void copy_wait(int n_groups_left)
{
    thread &t = threads[(size_t)current];
    size_t n_kept = 0;
    for (const pending_copy &copy : t.copies) {
        if (copy.group >= t.n_committed - n_groups_left)
            t.copies[n_kept++] = copy;
        else if (copy.valid)
            std::memcpy(copy.to, copy.from, copy.n_bytes);
        else
            std::memset(copy.to, 0, copy.n_bytes);
    }
    t.copies.resize(n_kept);
}

} // namespace emulated
