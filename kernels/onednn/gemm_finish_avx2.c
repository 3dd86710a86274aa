#define FINISH dip_gemm_finish_avx2
#include "kernels/onednn/gemm_finish.h"
