/* grid.h - run a kernel: the blocks one after the other, a block's threads as fibers. */
#ifndef EMULATED_GPU_GRID_H
#define EMULATED_GPU_GRID_H

#include <string>

#include "emulated_gpu.h"

namespace emulated
{

struct kernel_launch {
    std::string name;
    geometry shape;
    std::function<void()> thread;
    uint64_t seed; /* of the order in which threads and blocks run */
};

void run_grid(const kernel_launch &kernel);

constexpr size_t max_shared_bytes = 227 << 10;

} // namespace emulated

#endif
