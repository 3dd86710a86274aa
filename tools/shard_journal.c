/* The journal of an unfinished run: lines of text, each behind the CRC-32C of what follows it.
 *
 *     diptych shards 1
 *     options {"resize":256,...}        those of the run that began it
 *     input N DIGEST                    the pairs it found
 *     replace 0|1                       was it begun with --overwrite?
 *     lost POSITION KIND DETAIL         events of an output's positions ...
 *     kept POSITION SIGN                (with --dedup: what a pair in a shard is known by)
 *     shard OUTPUT NUMBER SAMPLES BYTES POSITION    ... up to one of its shards, now on disk
 *
 * An output's events are held in memory until its next shard is finished and then written together
 * with the shard's line, synced. What follows the last shard's line is of no meaning: a killed run
 * left it. The file is locked while a run works with it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/utf8.h"
#include "tools/shard.h"

static const size_t max_journal_bytes = (size_t)1 << 40;
static const char first_line[] = "diptych shards 1";
enum { CRC_DIGITS = 8, DETAIL_BYTES = 2400 /* 600 bytes, each written \xNN */ };

typedef struct text {
    char *bytes;
    size_t n, capacity;
} text;

struct shard_journal {
    char *path;
    int fd;
    int64_t n_shards;
    text pending[SHARD_MAX_OUTPUTS];
};

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory for the journal of the shards");
}

static dip_status io_error(const shard_journal *journal, const char *what)
{
    return dip_fail(DIP_IO, "%s: cannot be %s: %s", journal->path, what, strerror(errno));
}

char *shard_journal_path(const char *pattern)
{
    const char *slash = strrchr(pattern, '/');
    return dip_format("%.*sshards.journal", slash ? (int)(slash + 1 - pattern) : 0, pattern);
}

/* Lines. */

DIP_PRINTF(2, 3) static dip_status add_line(text *out, const char *format, ...)
{
    char *line;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&line, format, args);
    va_end(args);
    if (n < 0) return no_memory();
    size_t needed = out->n + CRC_DIGITS + 1 + (size_t)n + 2;
    if (needed > out->capacity) {
        size_t capacity = 2 * needed;
        char *bytes = realloc(out->bytes, capacity);
        if (!bytes) {
            free(line);
            return no_memory();
        }
        out->bytes = bytes;
        out->capacity = capacity;
    }
    out->n += (size_t)sprintf(out->bytes + out->n, "%08" PRIx32 " %s\n",
                              dip_crc32c(0, line, (size_t)n), line);
    free(line);
    return DIP_OK;
}

/* The line at *at without its CRC, NUL-terminated in place; NULL at the end or where a line is not
 * whole. *at moves behind it. */
static char *take_line(char **at, const char *end)
{
    char *start = *at, *newline = start < end ? memchr(start, '\n', (size_t)(end - start)) : NULL;
    if (!newline || newline - start < CRC_DIGITS + 1 || start[CRC_DIGITS] != ' ') return NULL;
    char *line = start + CRC_DIGITS + 1, *after;
    unsigned long crc = strtoul(start, &after, 16);
    if (after != start + CRC_DIGITS || crc != dip_crc32c(0, line, (size_t)(newline - line)))
        return NULL;
    *newline = '\0';
    *at = newline + 1;
    return line;
}

/* dip_text_quote's \xNN back to bytes, in place. */
static void unquote(char *quoted)
{
    char *out = quoted;
    for (const char *in = quoted; *in;) {
        unsigned byte;
        if (in[0] == '\\' && in[1] == 'x' && sscanf(in + 2, "%2x", &byte) == 1) {
            *out++ = (char)byte;
            in += 4;
        } else {
            *out++ = *in++;
        }
    }
    *out = '\0';
}

/* What a line says. */

static bool read_kept(const char *line, int64_t *position, dip_dedup_sign *sign)
{
    unsigned mean[3];
    *sign = (dip_dedup_sign){0};
    if (sscanf(line, "kept %" SCNd64 " %16" SCNx64 "%16" SCNx64 " %16" SCNx64 " %2x%2x%2x",
               position, &sign->digest.high, &sign->digest.low, &sign->phash.bits, &mean[0],
               &mean[1], &mean[2]) != 7)
        return false;
    for (int c = 0; c < 3; c++) sign->phash.mean[c] = (uint8_t)mean[c];
    return true;
}

static dip_status apply_line(char *line, const shard_journal_reader *reader)
{
    int64_t position;
    int output, kind, detail_at = 0;
    dip_finished_shard shard;
    dip_dedup_sign sign;
    if (sscanf(line, "shard %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, &output,
               &shard.number, &shard.n_samples, &shard.n_bytes, &position) == 5)
        return reader->shard(reader->context, output, &shard, position);
    if (sscanf(line, "lost %" SCNd64 " %d %n", &position, &kind, &detail_at) == 2 &&
        detail_at > 0 && kind >= 0 && kind < DIP_N_FAULT_KINDS) {
        unquote(line + detail_at);
        return reader->lost(reader->context, position, (dip_fault_kind)kind, line + detail_at);
    }
    if (read_kept(line, &position, &sign)) return reader->kept(reader->context, position, &sign);
    return dip_fail(DIP_FORMAT, "the journal has a line it cannot have: %.80s", line);
}

/* The header. */

typedef struct header {
    char *options;
    char input[96];
    int replace;
} header;

static bool take_header(header *h, char **at, const char *end)
{
    const char *lines[4];
    for (int i = 0; i < 4; i++)
        if (!(lines[i] = take_line(at, end))) return false;
    if (strcmp(lines[0], first_line) != 0 || strncmp(lines[1], "options ", 8) != 0 ||
        strlen(lines[2]) >= sizeof h->input || sscanf(lines[3], "replace %d", &h->replace) != 1)
        return false;
    h->options = (char *)(uintptr_t)lines[1] + 8;
    strcpy(h->input, lines[2]);
    return true;
}

bool shard_journal_exists(const char *path)
{
    char *bytes;
    size_t n;
    header h;
    if (dip_file_read(&bytes, &n, path, max_journal_bytes) != DIP_OK) return false;
    char *at = bytes;
    bool whole = take_header(&h, &at, bytes + n);
    free(bytes);
    return whole;
}

/* Options that do not change what is written. */
static bool is_free(const char *key)
{
    static const char *const keys[] = {"overwrite", "json", "jobs"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

/* Names the first option that differs. */
static dip_status compare_options(const shard_journal *journal, const char *saved, const cJSON *now)
{
    cJSON *then;
    DIP_TRY(dip_json_parse(&then, saved, strlen(saved), journal->path));
    dip_status status = DIP_OK;
    const cJSON *item;
    cJSON_ArrayForEach(item, now)
    {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(then, item->string);
        if (is_free(item->string) || cJSON_Compare(item, other, true)) continue;
        char *a = other ? cJSON_PrintUnformatted(other) : NULL, *b = cJSON_PrintUnformatted(item);
        status = dip_fail(DIP_CONFIG,
                          "%s: the unfinished run there had %s = %s, now it is %s (run it with the "
                          "same options to go on, or --overwrite to start anew)",
                          journal->path, item->string, a ? a : "null", b ? b : "null");
        cJSON_free(a);
        cJSON_free(b);
        break;
    }
    cJSON_Delete(then);
    return status;
}

/* Opening. */

static dip_status write_all(const shard_journal *journal, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(journal->fd, bytes, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return io_error(journal, "written");
        bytes += done;
        n -= (size_t)done;
    }
    return fsync(journal->fd) == 0 || errno == EINVAL ? DIP_OK : io_error(journal, "made durable");
}

/* A run that was killed a moment ago may still hold the lock while the system clears it away. */
static bool lock(int fd)
{
    enum { TRIES = 20 };
    const struct timespec pause = {.tv_nsec = 50000000};
    for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || i == TRIES) return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* Open and lock; a file that another run removed between the two is no journal any more. */
static dip_status open_locked(shard_journal *journal)
{
    for (;;) {
        struct stat mine, there;
        journal->fd = open(journal->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (journal->fd < 0) return io_error(journal, "opened");
        if (!lock(journal->fd))
            return errno == EWOULDBLOCK
                       ? dip_fail(DIP_CONFIG, "%s: another run is writing these shards",
                                  journal->path)
                       : io_error(journal, "locked");
        if (fstat(journal->fd, &mine) == 0 && stat(journal->path, &there) == 0 &&
            mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
            return DIP_OK;
        close(journal->fd);
    }
}

static dip_status begin(const shard_journal *journal, const char *options, const char *input,
                        bool replace)
{
    text out = {0};
    dip_status status = add_line(&out, "%s", first_line);
    if (status == DIP_OK) status = add_line(&out, "options %s", options);
    if (status == DIP_OK) status = add_line(&out, "%s", input);
    if (status == DIP_OK) status = add_line(&out, "replace %d", replace);
    if (status == DIP_OK && ftruncate(journal->fd, 0) != 0) status = io_error(journal, "emptied");
    if (status == DIP_OK) status = write_all(journal, out.bytes, out.n);
    free(out.bytes);
    if (status != DIP_OK) return status;
    const char *slash = strrchr(journal->path, '/');
    char *folder =
        slash ? strndup(journal->path, (size_t)(slash + 1 - journal->path)) : strdup(".");
    if (!folder) return no_memory();
    status = dip_sync_dir(folder);
    free(folder);
    return status;
}

/* Apply everything up to the last shard's line and cut the rest off. */
static dip_status replay(shard_journal *journal, char *start, char *at, const char *end,
                         const shard_journal_reader *reader)
{
    char *first = at, *after = at;
    for (const char *line; (line = take_line(&at, end));)
        if (strncmp(line, "shard ", 6) == 0) {
            after = at;
            journal->n_shards++;
        }
    /* The lines are NUL-terminated now. */
    while (first < after) {
        char *line = first + CRC_DIGITS + 1;
        first = line + strlen(line) + 1;
        DIP_TRY(apply_line(line, reader));
    }
    if (ftruncate(journal->fd, after - start) != 0) return io_error(journal, "cut");
    return DIP_OK;
}

static dip_status take_up(shard_journal *journal, const cJSON *options, const char *printed,
                          const char *input, bool *replace, const shard_journal_reader *reader)
{
    char *bytes = NULL;
    size_t n = 0;
    header h;
    dip_status status = DIP_OK;
    DIP_TRY_GOTO(dip_file_read(&bytes, &n, journal->path, max_journal_bytes));
    char *at = bytes;
    if (*replace || !take_header(&h, &at, bytes + n)) {
        status = begin(journal, printed, input, *replace);
        goto fail;
    }
    DIP_TRY_GOTO(compare_options(journal, h.options, options));
    if (strcmp(h.input, input) != 0)
        DIP_TRY_GOTO(dip_fail(DIP_CONFIG,
                              "%s: the input is not that of the unfinished run there (%s then, %s "
                              "now); --overwrite starts anew",
                              journal->path, h.input, input));
    *replace = h.replace != 0;
    status = replay(journal, bytes, at, bytes + n, reader);
fail:
    free(bytes);
    return status;
}

dip_status shard_journal_open(shard_journal **out, const char *path, const shard_options *o,
                              const dip_digest *digest, int64_t n_pairs, bool *replace,
                              const shard_journal_reader *reader)
{
    *out = NULL;
    shard_journal *journal = calloc(1, sizeof *journal);
    if (!journal) return no_memory();
    journal->fd = -1;
    journal->path = strdup(path);
    cJSON *options = dip_config_to_json(&shard_option_table, o);
    char *printed = NULL, input[96];
    snprintf(input, sizeof input, "input %" PRId64 " %016" PRIx64 "%016" PRIx64, n_pairs,
             digest->high, digest->low);
    dip_status status = journal->path && options ? DIP_OK : no_memory();
    if (status == DIP_OK) status = dip_json_print(&printed, options, false);
    if (status == DIP_OK) status = open_locked(journal);
    if (status == DIP_OK) status = take_up(journal, options, printed, input, replace, reader);
    free(printed);
    cJSON_Delete(options);
    if (status != DIP_OK) {
        shard_journal_close(journal, false);
        return status;
    }
    *out = journal;
    return DIP_OK;
}

/* Writing. */

dip_status shard_journal_lost(shard_journal *journal, int output, int64_t position,
                              dip_fault_kind kind, const char *detail)
{
    char quoted[DETAIL_BYTES + 1];
    return add_line(&journal->pending[output], "lost %" PRId64 " %d %s", position, (int)kind,
                    dip_text_quote(quoted, sizeof quoted, detail));
}

dip_status shard_journal_kept(shard_journal *journal, int output, int64_t position,
                              const dip_dedup_sign *sign)
{
    return add_line(&journal->pending[output],
                    "kept %" PRId64 " %016" PRIx64 "%016" PRIx64 " %016" PRIx64 " %02x%02x%02x",
                    position, sign->digest.high, sign->digest.low, sign->phash.bits,
                    sign->phash.mean[0], sign->phash.mean[1], sign->phash.mean[2]);
}

dip_status shard_journal_shard(shard_journal *journal, int output, const dip_finished_shard *shard,
                               int64_t position)
{
    text *pending = &journal->pending[output];
    DIP_TRY(add_line(pending, "shard %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64, output,
                     shard->number, shard->n_samples, shard->n_bytes, position));
    DIP_TRY(write_all(journal, pending->bytes, pending->n));
    pending->n = 0;
    journal->n_shards++;
    return DIP_OK;
}

int64_t shard_journal_n_shards(const shard_journal *journal)
{
    return journal->n_shards;
}

void shard_journal_close(shard_journal *journal, bool remove)
{
    if (!journal) return;
    if (remove && journal->fd >= 0) unlink(journal->path); /* before the lock goes */
    if (journal->fd >= 0) close(journal->fd);
    for (int i = 0; i < SHARD_MAX_OUTPUTS; i++) free(journal->pending[i].bytes);
    free(journal->path);
    free(journal);
}
