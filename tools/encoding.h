/* encoding.h - what the commands that run a model have in common: options, data, reports.
 *
 * Usage:   put a dip_encoding_flags into the command's struct and DIP_ENCODING_OPTIONS into its
 *          table; dip_encoding_open; dip_data_open; dip_data_encode_images; dip_report_print.
 * Owns:    dip_data owns samples and ledger; dip_data_close prints the ledger on stderr.     */
#ifndef DIP_TOOLS_ENCODING_H
#define DIP_TOOLS_ENCODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/config.h"
#include "data/loader.h"
#include "model/model.h"

typedef struct dip_encoding_flags {
    char *model, *device, *precision;
    int64_t batch_size, workers, threads;
    bool use_ema, json;
} dip_encoding_flags;

/* clang-format off */
#define DIP_ENCODING_OPTIONS(type, field)                                                          \
    {"model", DIP_OPT_STRING, offsetof(type, field.model), NULL, 0, 0, NULL, true, "FOLDER",       \
     "A checkpoint, an exported model, or a run folder (its newest checkpoint is taken)."},        \
    {"device", DIP_OPT_STRING, offsetof(type, field.device), "auto", 0, 0, NULL, false, "NAME",    \
     "Where to compute: cpu, cuda (the first GPU), cuda:N, or auto, a GPU if there is one. "       \
     "reference: plain C, slow, for checking."},                                                   \
    {"precision", DIP_OPT_CHOICE, offsetof(type, field.precision), "auto", 0, 0,                   \
     "auto|bf16|fp32", false, "KIND",                                                              \
     "Number format of activations and weights; auto takes bf16 where the device is fast at it."}, \
    {"batch-size", DIP_OPT_INT, offsetof(type, field.batch_size), "64", 1, 65536, NULL, false,     \
     "N", "Images or texts computed at once."},                                                    \
    {"workers", DIP_OPT_INT, offsetof(type, field.workers), "0", 0, 1024, NULL, false, "N",        \
     "Threads that read and decode; 0: one a core. Changes the speed, never the result."},         \
    {"threads", DIP_OPT_INT, offsetof(type, field.threads), "0", 0, 4096, NULL, false, "N",        \
     "Threads that compute; 0: one a core. Changes the speed, never the result."},                 \
    {"use-ema", DIP_OPT_BOOL, offsetof(type, field.use_ema), "false", 0, 0, NULL, false, NULL,     \
     "Use the averaged weights of a training checkpoint; refused if it has none."},                \
    {"json", DIP_OPT_BOOL, offsetof(type, field.json), "false", 0, 0, NULL, false, NULL,           \
     "Print exactly one JSON object on stdout."}
/* clang-format on */

dip_status dip_encoding_open(dip_model **model, const dip_encoding_flags *flags);

/* Can the file that the user named be read? Before the work begins, and as DIP_CONFIG if not: to
 * the one who typed the name it is a mistake in the command, not a failure of the system. */
dip_status dip_input_check(const char *path);

/* All samples of a shard pattern, and the ledger of those that could not be used. */
typedef struct dip_data {
    dip_faults *faults;
    dip_samples *samples;
    dip_sample_reader *reader; /* of captions; one thread */
    char *json_text_key;       /* NULL: captions are .txt members */
    char *json_text;           /* the caption that was read last, out of a .json */
} dip_data;

dip_status dip_data_open(dip_data *data, const char *pattern, int needs, const char *json_text_key);
/* The caption of a sample, valid until the next call. DIP_FORMAT: it has none that can be read, and
 * is named in the ledger; any other failure is the machine's. */
dip_status dip_data_caption(dip_data *data, const char **text, size_t *n_bytes, int64_t index);
void dip_data_close(dip_data *data); /* prints the ledger, if anything is in it, on stderr */

/* Called with features [batch->n][E]; a status other than DIP_OK ends the encoding. */
typedef dip_status dip_encoded_fn(void *context, const dip_batch *batch, const float *features);

/* Every image of the data, in storage order, preprocessed as the model's configuration says.
 * *seconds: wall time from the first batch to the last. DIP_FORMAT when no image can be used. */
dip_status dip_data_encode_images(const dip_data *data, dip_model *model,
                                  const dip_encoding_flags *flags, dip_encoded_fn *each,
                                  void *context, double *seconds);

/* A report is one JSON object. Printed as JSON, or for people: a line a key. */
cJSON *dip_report_new(const dip_model *model); /* "model", "precision", "ema"; or NULL */
dip_status dip_report_print(const cJSON *report, bool json); /* DIP_NOMEM also for NULL */

double dip_seconds_now(void);

#endif
