/* faults.h - the ledger of samples that could not be used: counted by reason, named, never
 * silent.
 *
 * Usage:   dip_faults_open; dip_faults_record if a file is to name every one of them; then
 *          dip_faults_add_at for each fault; dip_faults_print at the end; dip_faults_close.
 * Owns:    what is remembered: at most 64 bytes a fault, and the text of the first 10,000.
 * Threads: all functions but open and close are safe from any thread.                    */
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
    X(UNREADABLE, "file cannot be read")                                                           \
    X(CHECKSUM, "bytes differ from the index")                                                     \
    X(DUPLICATE, "duplicate of another sample")                                                    \
    X(FILTERED, "outside the limits asked for")

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
 * first 20 of each kind are also logged as warnings; the first 10,000 are kept by name. The
 * same (kind, where) counts once, so that a second epoch does not count a sample again. */
void dip_faults_add(dip_faults *faults, dip_fault_kind kind, const char *where, const char *detail);

/* The same for a sample ("shard: key") or a place in a shard: key NULL is the shard's byte `offset`
 * ("shard: at byte N"), or, with offset -1, the shard. Of a sample the offset is only told. */
typedef struct dip_fault_place {
    const char *shard, *key;
    int64_t offset; /* -1: unknown */
} dip_fault_place;
void dip_faults_add_at(dip_faults *faults, dip_fault_kind kind, const dip_fault_place *place,
                       const char *detail);

/* Write each new fault as a line of JSON to `path`, {"shard", "offset", "key", "reason", "detail"},
 * offset and key null where there is none; bytes that are not UTF-8 and control characters are
 * \xNN in the strings. At most max_lines, then one last line that says so. Faults that came before
 * this call are written too, as far as they are kept.
 *
 * To go on with a file: n_keep is what dip_faults_recorded said when the state was saved. Lines
 * beyond are cut off; the kept ones count as found, so that a resumed run ends with the file of an
 * uninterrupted one. DIP_IO, DIP_NOMEM. A line that cannot be written later is a warning, the first
 * time. */
dip_status dip_faults_record(dip_faults *faults, const char *path, int64_t n_keep,
                             int64_t max_lines);

/* Lines so far, made durable first: save it with a checkpoint. 0 without dip_faults_record. */
int64_t dip_faults_recorded(const dip_faults *faults);

int64_t dip_faults_total(const dip_faults *faults);
int64_t dip_faults_count(const dip_faults *faults, dip_fault_kind kind);
const char *dip_fault_text(dip_fault_kind kind);

/* A few lines for the end of a command: count, reason, first names. Nothing if no faults. */
void dip_faults_print(const dip_faults *faults, FILE *out);

#endif
