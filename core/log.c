#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, TEXT_BYTES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool quiet;
static int file_fd = -1;
static bool file_failed; /* said once; a full disk must not stop a run over its log */

/* A line reaches the kernel in as few writes as possible, so that lines of several processes on
 * one terminal stay whole. */
static bool write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, text, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        text += done;
        n -= (size_t)done;
    }
    return true;
}

/* Text may hold names from archives: control bytes are shown as escapes, so that no name can
 * forge a line or drive a terminal. */
static size_t append_escaped(char *line, size_t used, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = strlen(text);
    if (n > 0 && text[n - 1] == '\n') n--;
    for (size_t i = 0; i < n && used + 6 < LINE_BYTES; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n') {
            line[used++] = '\\';
            line[used++] = 'n';
        } else if ((c < 0x20 && c != '\t') || c == 0x7f) {
            line[used++] = '\\';
            line[used++] = 'x';
            line[used++] = hex[c >> 4];
            line[used++] = hex[c & 15];
        } else {
            line[used++] = (char)c;
        }
    }
    return used;
}

void dip_log(dip_log_level level, const char *format, ...)
{
    static const char *const names[] = {"INFO", "WARNING", "ERROR"};
    int saved_errno = errno; /* callers may log before they look at it */
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (wanted < 0) text[0] = '\0';
    if (wanted >= TEXT_BYTES) memcpy(text + TEXT_BYTES - 4, "...", 4);

    char line[LINE_BYTES];
    time_t now = time(NULL);
    struct tm parts;
    size_t used = 0;
    if (localtime_r(&now, &parts)) used = strftime(line, sizeof line, "%Y-%m-%d,%H:%M:%S", &parts);
    used += (size_t)snprintf(line + used, sizeof line - used, " | %s | ", names[level]);
    used = append_escaped(line, used, text);
    line[used++] = '\n';

    pthread_mutex_lock(&lock);
    const bool shown = level == DIP_LOG_WARNING || (level == DIP_LOG_INFO && !quiet);
    if (shown) write_all(STDERR_FILENO, line, used);
    if (file_fd >= 0 && !write_all(file_fd, line, used) && !file_failed) {
        file_failed = true;
        char complaint[128];
        int n = snprintf(complaint, sizeof complaint, "the log file cannot be written: %s\n",
                         strerror(errno));
        if (n > 0) write_all(STDERR_FILENO, complaint, (size_t)n);
    }
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
}

void dip_log_set_quiet(bool hide_info)
{
    pthread_mutex_lock(&lock);
    quiet = hide_info;
    pthread_mutex_unlock(&lock);
}

dip_status dip_log_open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0) return dip_fail(DIP_IO, "cannot open log file %s: %s", path, strerror(errno));
    pthread_mutex_lock(&lock);
    int old_fd = file_fd;
    file_fd = fd;
    file_failed = false;
    pthread_mutex_unlock(&lock);
    if (old_fd >= 0) close(old_fd);
    return DIP_OK;
}

void dip_log_close_file(void)
{
    pthread_mutex_lock(&lock);
    if (file_fd >= 0) close(file_fd);
    file_fd = -1;
    pthread_mutex_unlock(&lock);
}
