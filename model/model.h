/* model.h - what the rest of the program may see of an open model, beyond diptych.h.
 *
 * Usage:   after dip_model_open; everything returned is the model's own, valid until its close. */
#ifndef DIP_MODEL_MODEL_H
#define DIP_MODEL_MODEL_H

#include <stdbool.h>

#include "kernels/device.h"
#include "model/clip.h"
#include "model/diptych.h"
#include "text/tokenizer.h"

/* Images of more pixels are not decoded: open_clip's limit. */
enum { DIP_MAX_IMAGE_PIXELS = 25000000 };

const dip_clip *dip_model_clip(const dip_model *model);
const dip_tokenizer *dip_model_tokenizer(const dip_model *model);
const char *dip_model_folder(const dip_model *model); /* the folder that was read */
bool dip_model_is_ema(const dip_model *model);        /* are its weights the averaged ones? */

/* As dip_model_encode_texts, from texts of lengths[i] bytes that may hold any byte. */
dip_status dip_model_encode_captions(dip_model *model, float *features, const char *const *texts,
                                     const size_t *lengths, size_t n);

/* "auto", "bf16" or "fp32" to a number format, as dip_model_open decides: auto is bf16 where the
 * device is fast at it, but fp32 on the reference backend, which is for checking. */
dip_status dip_precision_resolve(dip_dtype *dtype, const char *precision, const char *device);

#endif
