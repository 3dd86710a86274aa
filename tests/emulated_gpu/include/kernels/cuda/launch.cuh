/* launch.cuh of the emulated GPU: the interface of kernels/cuda/launch.cuh, which it shadows. */
#ifndef DIP_KERNELS_CUDA_LAUNCH_CUH
#define DIP_KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#define DIP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
    ::emulated::prepare(#kernel, kernel, (grid), (block), (shared_bytes), (stream))

#define DIP_DYNAMIC_SHARED(name) unsigned char *const name = ::emulated::dynamic_shared()

#define DIP_ALLOW_SHARED(kernel, shared_bytes)                                                     \
    cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,      \
                         (int)(shared_bytes))

#endif
