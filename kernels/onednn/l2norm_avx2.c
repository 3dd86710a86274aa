#include "kernels/onednn/vector_avx2.h"

#define VECTOR_FILE "kernels/onednn/l2norm_vector.h"
#include "kernels/onednn/each_type.h"
