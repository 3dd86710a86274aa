#define FINISH dip_gemm_finish_avx512
#include "kernels/onednn/gemm_finish.h"
