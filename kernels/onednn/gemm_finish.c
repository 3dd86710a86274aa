#define FINISH dip_gemm_finish_base
#include "kernels/onednn/gemm_finish.h"
