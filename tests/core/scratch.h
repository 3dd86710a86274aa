/* scratch.h - an empty folder of its own for a test program, below TEST_BINARY_DIR. */
#ifndef DIP_TESTS_CORE_SCRATCH_H
#define DIP_TESTS_CORE_SCRATCH_H

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

/* Empty TEST_BINARY_DIR/scratch/NAME. Exits the test program if that cannot be done. */
static inline const char *scratch_init(const char *name)
{
    static char *path;
    free(path);
    path = dip_format("%s/scratch/%s", TEST_BINARY_DIR, name);
    if (!path || dip_remove_tree(path) != DIP_OK || dip_make_dirs(path) != DIP_OK) exit(99);
    return path;
}

/* Entries of a folder, "." and ".." not counted; -1 if it cannot be listed. */
static inline int scratch_count(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return -1;
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

#endif
