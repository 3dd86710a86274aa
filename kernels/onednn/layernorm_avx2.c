#include "kernels/onednn/vector_avx2.h"

#define VECTOR_FILE "kernels/onednn/layernorm_vector.h"
#include "kernels/onednn/each_type.h"
