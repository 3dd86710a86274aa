/* isa.h - what isa.c tells onednn.c besides the public part in onednn.h and device.h. */
#ifndef DIP_KERNELS_ONEDNN_ISA_H
#define DIP_KERNELS_ONEDNN_ISA_H

#include "kernels/onednn/onednn.h"

/* The value of DIPTYCH_CPU_ISA when it is not one of the known words, else NULL. */
const char *dip_cpu_isa_unknown_word(void);

#endif
