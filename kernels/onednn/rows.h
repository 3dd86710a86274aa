/* rows.h - gather and scatter of rows: copies, so one code for every instruction set. */
#ifndef DIP_KERNELS_ONEDNN_ROWS_H
#define DIP_KERNELS_ONEDNN_ROWS_H

#include "kernels/ops.h"

dip_rows_gather_fn dip_onednn_rows_gather_f32, dip_onednn_rows_gather_bf16;
dip_rows_scatter_fn dip_onednn_rows_scatter_f32, dip_onednn_rows_scatter_bf16;

#endif
