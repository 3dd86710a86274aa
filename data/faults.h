/* faults.h - the ledger of samples that could not be used: counted by reason, named, never
 * silent.
 *
 * Threads: dip_faults_add is safe from any thread.                                       */
#ifndef DIP_DATA_FAULTS_H
#define DIP_DATA_FAULTS_H

#include <stdint.h>
#include <stdio.h>

#include "core/status.h"

#define DIP_FAULT_KINDS(X)                                                                         \
    X(TAR, "damaged or truncated tar")                                                             \
    X(NO_IMAGE, "caption without image")                                                           \
    X(NO_CAPTION, "image without caption")                                                         \
    X(DUPLICATE_MEMBER, "two members with the same name")                                          \
    X(IMAGE_FORMAT, "not an image format this build reads")                                        \
    X(IMAGE_BROKEN, "broken or truncated image")                                                   \
    X(IMAGE_TOO_LARGE, "image beyond the pixel limit")                                             \
    X(CAPTION_UTF8, "caption is not UTF-8")                                                        \
    X(CAPTION_EMPTY, "empty caption")                                                              \
    X(LABEL, "unreadable class label")                                                             \
    X(UNREADABLE, "file cannot be read")

typedef enum dip_fault_kind {
#define DIP_FAULT_ENUM(name, text) DIP_FAULT_##name,
    DIP_FAULT_KINDS(DIP_FAULT_ENUM)
#undef DIP_FAULT_ENUM
        DIP_N_FAULT_KINDS
} dip_fault_kind;

typedef struct dip_faults dip_faults;

dip_status dip_faults_open(dip_faults **faults);
void dip_faults_close(dip_faults *faults); /* accepts NULL */

/* Count one sample lost. `where` names it ("shard.tar: key"), `detail` says what was seen. The
 * first 20 of each kind are also logged as warnings; the first 1,000 are kept by name. The
 * same (kind, where) counts once, so that a second epoch does not count a sample again. */
void dip_faults_add(dip_faults *faults, dip_fault_kind kind, const char *where, const char *detail);

int64_t dip_faults_total(const dip_faults *faults);
int64_t dip_faults_count(const dip_faults *faults, dip_fault_kind kind);
const char *dip_fault_text(dip_fault_kind kind);

/* A few lines for the end of a command: count, reason, first names. Nothing if no faults. */
void dip_faults_print(const dip_faults *faults, FILE *out);

#endif
