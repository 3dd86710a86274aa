/* each_type.h - compile VECTOR_FILE once for each activation dtype.
 *
 * Usage:   include vector_avx2.h or vector_avx512.h, define VECTOR_FILE, include this.
 *
 *   T                  the activation dtype: float, then dip_bf16
 *   LOAD(p)            LANES floats from LANES T
 *   LOAD_N(p, n)       the first n < LANES of them, the others 0; reads nothing beyond
 *   STORE, STORE_N     the way back, rounding to T
 *   OP(name)           the op's symbol, dip_<isa>_<name>_<dtype>
 *   LOCAL(name)        a file-local function's symbol
 *   T_IS_FLOAT         1 or 0
 * What does not depend on T stands in VECTOR_FILE within #ifndef VECTOR_ONCE.           */
#ifndef VECTOR_FILE
#error "define VECTOR_FILE before including each_type.h"
#endif

#include "kernels/onednn/vector_common.h"

#define T                float
#define LOAD(p)          vec_load(p)
#define LOAD_N(p, n)     vec_load_n(p, n)
#define STORE(p, x)      vec_store(p, x)
#define STORE_N(p, x, n) vec_store_n(p, x, n)
#define OP_(symbol)      symbol##_f32
#define LOCAL(name)      name##_f32
#define T_IS_FLOAT       1
#include VECTOR_FILE
#undef T
#undef LOAD
#undef LOAD_N
#undef STORE
#undef STORE_N
#undef OP_
#undef LOCAL
#undef T_IS_FLOAT
#define VECTOR_ONCE

#define T                dip_bf16
#define LOAD(p)          vec_load_bf16(p)
#define LOAD_N(p, n)     vec_load_bf16_n(p, n)
#define STORE(p, x)      vec_store_bf16(p, x)
#define STORE_N(p, x, n) vec_store_bf16_n(p, x, n)
#define OP_(symbol)      symbol##_bf16
#define LOCAL(name)      name##_bf16
#define T_IS_FLOAT       0
#include VECTOR_FILE
