/* The warp-wide instructions of ptx.cuh, computed from the operands of all 32 lanes at once. */
#include <cstring>

#include "grid.h"
#include "kernels/cuda/ptx.cuh"

namespace emulated
{

namespace
{

/* Plain arithmetic on whole arrays, and the part of a test that costs most: not instrumented. */
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

/* The lower or upper bf16 of a register. */
UNCHECKED float bf16_half(uint32_t pair, int upper)
{
    const uint32_t bits = upper ? pair & 0xffff0000u : pair << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace

/* PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type", .bf16. With groupID =
 * lane >> 2 and threadID_in_group = lane % 4, element i of a lane's fragment is
 *   A: row = groupID for i in 0, 1, 4, 5, else groupID + 8;
 *      col = threadID_in_group * 2 + (i & 1), + 8 for i >= 4
 *   B: row = threadID_in_group * 2 + (i & 1), + 8 for i >= 2;  col = groupID
 *   C: row = groupID for i < 2, else groupID + 8;  col = threadID_in_group * 2 + (i & 1) */
UNCHECKED void mma_bf16(void *const operands[32])
{
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const mma_operands &own = *static_cast<const mma_operands *>(operands[lane]);
        const int group = lane >> 2, in_group = lane % 4;
        for (int i = 0; i < 8; i++) {
            const int row = i % 4 < 2 ? group : group + 8;
            a[row][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = bf16_half(own.a[i / 2], i & 1);
        }
        for (int i = 0; i < 4; i++) {
            b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = bf16_half(own.b[i / 2], i & 1);
            c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = own.d[i];
        }
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++) {
        float *d = static_cast<const mma_operands *>(operands[lane])->d;
        for (int i = 0; i < 4; i++) d[i] = c[(i < 2 ? 0 : 8) + (lane >> 2)][lane % 4 * 2 + (i & 1)];
    }
}

/* PTX ISA, ldmatrix: threads 8 m to 8 m + 7 hold the addresses of the rows of matrix m; of row
 * r, thread 4 r + c receives the elements 2 c and 2 c + 1. .trans: matrices come in column-major.
 */
template <int N, bool Transposed> void ldmatrix(void *const operands[32])
{
    for (int m = 0; m < N; m++) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; row++) {
            const void *address =
                static_cast<const ldmatrix_operands *>(operands[m * 8 + row])->row;
            if ((uintptr_t)address % 16 != 0)
                stop("ldmatrix: lane %d gives the address %p, not a multiple of 16 bytes",
                     m * 8 + row, address);
            std::memcpy(matrix[row], address, sizeof matrix[row]);
        }
        for (int lane = 0; lane < 32; lane++) {
            const int major = lane / 4, minor = lane % 4 * 2;
            const uint32_t low = Transposed ? matrix[minor][major] : matrix[major][minor];
            const uint32_t high = Transposed ? matrix[minor + 1][major] : matrix[major][minor + 1];
            static_cast<const ldmatrix_operands *>(operands[lane])->r[m] = low | high << 16;
        }
    }
}

template void ldmatrix<4, false>(void *const operands[32]);
template void ldmatrix<4, true>(void *const operands[32]);
template void ldmatrix<2, false>(void *const operands[32]);
template void ldmatrix<2, true>(void *const operands[32]);

} // namespace emulated
