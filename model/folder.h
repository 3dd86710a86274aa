/* folder.h - a checkpoint folder: found, read, written.
 *
 * What is in it is listed in model/clip.h. Everything that opens a model (the public API, export,
 * inspect, the trainer's evaluation of a saved model) goes through here, so that all refuse the
 * same things in the same words.
 *
 * Usage:   dip_folder_find, dip_folder_read, dip_folder_tokenizer; dip_folder_write to export.
 * Errors:  DIP_CONFIG: no such folder, or files missing (all of them named); DIP_FORMAT: damaged,
 *          or not fitting together; DIP_IO, DIP_NOMEM.                                      */
#ifndef DIP_MODEL_FOLDER_H
#define DIP_MODEL_FOLDER_H

#include <stdbool.h>

#include "core/status.h"
#include "model/clip.h"
#include "text/tokenizer.h"

/* The folder that `path` means: itself, or the newest checkpoint of a run folder
 * (checkpoints/epoch_latest in it). *folder is malloc'd. */
dip_status dip_folder_find(char **folder, const char *path);

/* Configuration and weights. *values [clip->table.n_values] is malloc'd. use_ema: the averaged
 * weights; DIP_CONFIG if the folder has none. On failure nothing is left to free. */
dip_status dip_folder_read(dip_clip *clip, float **values, const char *folder, bool use_ema);

/* The tokenizer, checked against the configuration: as many pieces as the model has embeddings,
 * and the end of a text where the tower looks for it. */
dip_status dip_folder_tokenizer(dip_tokenizer **tokenizer, const dip_clip *clip,
                                const char *folder);

/* Write a folder that did not exist, complete or not at all. overwrite: take the place of a folder
 * that holds a model and no training state. */
dip_status dip_folder_write(const char *folder, const dip_clip *clip, const float *values,
                            const dip_tokenizer *tokenizer, bool overwrite);

#endif
