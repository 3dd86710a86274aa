/* ptx.cuh - the instructions that CUDA C++ has no function for: tensor cores, the asynchronous copy
 * (sm_80 and newer), and the power of two. Those of tensor cores are warp-wide: every lane of the
 * warp calls them together. The others are per lane.
 *
 * Source: PTX ISA, "Matrix multiply-accumulate operation using mma instruction", "ldmatrix",
 * "cp.async", "ex2". Fragment layouts, with g = lane / 4 and t = lane % 4:
 *   A (16 x 16, row-major): a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..),
 *     a[3] = (g + 8, 2t + 8..); each register holds two neighbours of a row, the left one low.
 *   B (16 x 8, columns contiguous): b[0] = (2t.., g), b[1] = (2t + 8.., g); two neighbours of a
 *     column, the upper one low.
 *   C, D (16 x 8): c[0], c[1] = (g, 2t), (g, 2t + 1); c[2], c[3] = (g + 8, 2t), (g + 8, 2t + 1). */
#ifndef DIP_KERNELS_CUDA_PTX_CUH
#define DIP_KERNELS_CUDA_PTX_CUH

#include <stdint.h>

/* d += a b, bf16 operands, float accumulators. */
__device__ __forceinline__ void mma_bf16_16x8x16(float d[4], const uint32_t a[4],
                                                 const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Address in shared memory as PTX wants it. */
__device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 m + i gives the address of row
 * i of matrix m (16 bytes, 16-byte aligned); lane l receives elements 2 (l % 4) and 2 (l % 4) + 1
 * of row l / 4 of matrix m in r[m]. Rows of 16 bytes, row-major A: matrices (0,0), (8,0), (0,8),
 * (8,8) make an A fragment. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same with every matrix transposed: lane l receives column l / 4, rows 2 (l % 4) and + 1. */
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* Two matrices; the addresses of lanes 0..15 count. */
__device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_transposed(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, both 16-byte aligned, without passing registers; zeros
 * when not `valid` (the global address is then not read). They are seen after cp_async_wait and a
 * barrier. */
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Wait until at most N of this thread's committed groups are still under way. */
template <int N> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* 2^x, good to 2 units of the last place; 0 for -infinity, and where 2^x is subnormal. Not
 * volatile: it may move and be shared, as a function of its argument. */
__device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#endif
