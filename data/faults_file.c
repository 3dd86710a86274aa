/* The ledger as a file: a line of JSON a fault. A line is one write, so that a killed run leaves
 * whole lines, or one last line that the next run cuts off. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "core/log.h"
#include "data/faults_internal.h"

/* Writing. */

static void give_up(dip_faults_file *file, const char *why)
{
    file->failed = true;
    dip_warn("%s: cannot be written: %s; faults are only counted from here", file->path, why);
}

static void write_line(dip_faults_file *file, char *line)
{
    const size_t n = strlen(line) + 1;
    line[n - 1] = '\n'; /* in place of the NUL, which nobody needs any more */
    for (size_t done = 0; done < n;) {
        ssize_t written = write(file->fd, line + done, n - done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            give_up(file, strerror(written < 0 ? errno : EIO));
            return;
        }
        done += (size_t)written;
    }
    file->n_lines++;
}

static char *print_fault(const dip_fault *fault)
{
    char *line = NULL;
    cJSON *row = cJSON_CreateObject();
    if (!row) return NULL;
    const char *reason = dip_fault_text(fault->kind);
    bool made = cJSON_AddStringToObject(row, "shard", fault->shard) &&
                (fault->offset >= 0 ? cJSON_AddNumberToObject(row, "offset", (double)fault->offset)
                                    : cJSON_AddNullToObject(row, "offset")) &&
                (fault->key ? cJSON_AddStringToObject(row, "key", fault->key)
                            : cJSON_AddNullToObject(row, "key")) &&
                cJSON_AddStringToObject(row, "reason", reason) &&
                cJSON_AddStringToObject(row, "detail", fault->detail);
    if (made && dip_json_print(&line, row, false) != DIP_OK) line = NULL;
    cJSON_Delete(row);
    return line;
}

void dip_faults_file_add(dip_faults_file *file, const dip_fault *fault)
{
    if (!file->path || file->failed || file->n_lines > file->max_lines) return;
    char *line = file->n_lines < file->max_lines
                     ? print_fault(fault)
                     : strdup("{\"reason\":\"further faults are counted, not named\"}");
    if (line)
        write_line(file, line);
    else
        give_up(file, "no memory");
    free(line);
}

void dip_faults_file_close(dip_faults_file *file)
{
    if (!file->path) return;
    close(file->fd);
    free(file->path);
    *file = (dip_faults_file){0};
}

int64_t dip_faults_recorded(const dip_faults *faults)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&faults->lock;
    pthread_mutex_lock(lock);
    const dip_faults_file *file = &faults->file;
    if (file->path && fsync(file->fd) != 0 && errno != EINVAL)
        dip_warn("%s: cannot be made durable: %s", file->path, strerror(errno));
    const int64_t n = file->n_lines;
    pthread_mutex_unlock(lock);
    return n;
}

/* Going on with a file. */

static const char *string_of(const cJSON *row, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, name));
}

/* The kind and digest of a line; false if it is no fault (the last line of a full file). */
static bool read_fault(dip_fault_kind *kind, dip_digest *digest, const cJSON *row)
{
    const char *shard = string_of(row, "shard"), *reason = string_of(row, "reason");
    const cJSON *offset = cJSON_GetObjectItemCaseSensitive(row, "offset");
    if (!shard || !reason) return false;
    int i = 0;
    while (i < DIP_N_FAULT_KINDS && strcmp(dip_fault_text((dip_fault_kind)i), reason) != 0) i++;
    if (i == DIP_N_FAULT_KINDS) return false;
    char where[DIP_FAULT_WHERE_BYTES];
    dip_fault_where(where, shard, string_of(row, "key"),
                    cJSON_IsNumber(offset) ? (int64_t)offset->valuedouble : -1);
    *kind = (dip_fault_kind)i;
    *digest = dip_fault_digest(*kind, where);
    return true;
}

/* Remember the first n_keep lines; *kept_bytes is where they end. */
static dip_status read_lines(dip_faults *faults, dip_digest_set *known, off_t *kept_bytes, FILE *in,
                             int64_t n_keep)
{
    dip_faults_file *file = &faults->file;
    dip_status status = DIP_OK;
    char *line = NULL;
    size_t capacity = 0;
    *kept_bytes = 0;
    while (file->n_lines < n_keep) {
        ssize_t n = getline(&line, &capacity, in);
        if (n <= 0 || line[n - 1] != '\n') break;
        cJSON *row;
        dip_fault_kind kind;
        dip_digest digest;
        status = dip_json_parse(&row, line, (size_t)n - 1, "a line of the ledger");
        if (status == DIP_NOMEM) break;
        if (status == DIP_OK && read_fault(&kind, &digest, row)) {
            dip_digest_set_add(known, digest);
            if (dip_digest_set_add(&faults->seen, digest)) faults->counts[kind]++;
        }
        cJSON_Delete(status == DIP_OK ? row : NULL);
        *kept_bytes += n;
        file->n_lines++;
    }
    free(line);
    if (status == DIP_NOMEM) return status;
    if (ferror(in)) return dip_fail(DIP_IO, "cannot read %s: %s", file->path, strerror(errno));
    if (file->n_lines < n_keep)
        dip_warn("%s has %" PRId64 " lines, it had %" PRId64 " when the state was saved",
                 file->path, file->n_lines, n_keep);
    return DIP_OK;
}

static dip_status go_on(dip_faults *faults, dip_digest_set *known, int64_t n_keep)
{
    dip_faults_file *file = &faults->file;
    off_t kept_bytes = 0;
    if (n_keep > 0) {
        FILE *in = fopen(file->path, "rbe");
        if (!in) return dip_fail(DIP_IO, "cannot read %s: %s", file->path, strerror(errno));
        dip_status status = read_lines(faults, known, &kept_bytes, in, n_keep);
        fclose(in);
        DIP_TRY(status);
    }
    if (ftruncate(file->fd, kept_bytes) != 0)
        return dip_fail(DIP_IO, "%s: cannot be cut to %lld bytes: %s", file->path,
                        (long long)kept_bytes, strerror(errno));
    for (size_t i = 0; i < faults->n_kept; i++)
        if (!dip_digest_set_has(known, faults->kept[i].digest))
            dip_faults_file_add(file, &faults->kept[i]);
    return DIP_OK;
}

static dip_status open_file(dip_faults_file *file, const char *path, int64_t max_lines)
{
    *file = (dip_faults_file){.max_lines = max_lines};
    int fd;
    do fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    while (fd < 0 && errno == EINTR);
    struct stat info;
    if (fd < 0) return dip_fail(DIP_IO, "cannot write %s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return dip_fail(DIP_IO, "cannot write %s: it is not a regular file", path);
    }
    file->path = strdup(path);
    if (!file->path) {
        close(fd);
        return dip_fail(DIP_NOMEM, "no memory for the ledger %s", path);
    }
    file->fd = fd;
    return DIP_OK;
}

dip_status dip_faults_record(dip_faults *faults, const char *path, int64_t n_keep,
                             int64_t max_lines)
{
    dip_digest_set known = {0};
    pthread_mutex_lock(&faults->lock);
    dip_faults_file_close(&faults->file);
    dip_status status = open_file(&faults->file, path, max_lines);
    if (status == DIP_OK) status = go_on(faults, &known, n_keep);
    if (status != DIP_OK) dip_faults_file_close(&faults->file);
    pthread_mutex_unlock(&faults->lock);
    free(known.slots);
    return status;
}
