/* ptx.cuh of the emulated GPU: the interface of kernels/cuda/ptx.cuh, which it shadows.
 *
 * Fragment layouts are written here from the PTX ISA's formulas for mma.m16n8k16 and ldmatrix, not
 * from their description in the shadowed file. */
#ifndef DIP_KERNELS_CUDA_PTX_CUH
#define DIP_KERNELS_CUDA_PTX_CUH

#include <cmath>
#include <cstdint>

#include "emulated_gpu.h"

namespace emulated
{
struct mma_operands {
    float *d;
    const uint32_t *a, *b;
};
struct ldmatrix_operands {
    uint32_t *r;
    const void *row;
};
void mma_bf16(void *const operands[32]);
template <int N, bool Transposed> void ldmatrix(void *const operands[32]);
} // namespace emulated

#define EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void mma_bf16_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], EMULATED_SITE)
{
    emulated::mma_operands operands = {d, a, b};
    emulated::together({"mma_bf16_16x8x16", file, line, 0}, &operands, emulated::mma_bf16);
}

inline void ldmatrix_x4(uint32_t r[4], const void *row, EMULATED_SITE)
{
    emulated::ldmatrix_operands operands = {r, row};
    emulated::together({"ldmatrix_x4", file, line, 0}, &operands, emulated::ldmatrix<4, false>);
}

inline void ldmatrix_x4_transposed(uint32_t r[4], const void *row, EMULATED_SITE)
{
    emulated::ldmatrix_operands operands = {r, row};
    emulated::together({"ldmatrix_x4_transposed", file, line, 0}, &operands,
                       emulated::ldmatrix<4, true>);
}

inline void ldmatrix_x2(uint32_t r[2], const void *row, EMULATED_SITE)
{
    emulated::ldmatrix_operands operands = {r, row};
    emulated::together({"ldmatrix_x2", file, line, 0}, &operands, emulated::ldmatrix<2, false>);
}

inline void ldmatrix_x2_transposed(uint32_t r[2], const void *row, EMULATED_SITE)
{
    emulated::ldmatrix_operands operands = {r, row};
    emulated::together({"ldmatrix_x2_transposed", file, line, 0}, &operands,
                       emulated::ldmatrix<2, true>);
}

inline void cp_async_16(void *shared, const void *global, bool valid, EMULATED_SITE)
{
    emulated::copy_async(shared, global, 16, valid, file, line);
}

inline void cp_async_commit()
{
    emulated::copy_commit();
}

template <int N> void cp_async_wait()
{
    static_assert(N >= 0, "");
    emulated::copy_wait(N);
}

/* More accurate than the instruction, and subnormal results stay. */
inline float power_of_two(float x)
{
    return exp2f(x);
}

#undef EMULATED_SITE

#endif
