/* launch.cuh - starting a kernel, and its dynamic shared memory. */
#ifndef DIP_KERNELS_CUDA_LAUNCH_CUH
#define DIP_KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

/* DIP_LAUNCH(kernel, grid, block, shared_bytes, stream)(arguments ...); grid and block are dim3 or
 * integers, none of them 0. A kernel with commas in its template arguments goes in parentheses. */
#define DIP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>

/* In a kernel: `DIP_DYNAMIC_SHARED(name);` makes `unsigned char *name`, 128-byte aligned. */
#define DIP_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

/* More than 48 KB of dynamic shared memory has to be asked for, once per kernel and device; call it
 * before each launch that needs it (it costs next to nothing). A cudaError_t. */
#define DIP_ALLOW_SHARED(kernel, shared_bytes)                                                     \
    cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,      \
                         (int)(shared_bytes))

#endif
