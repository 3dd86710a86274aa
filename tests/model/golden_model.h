/* golden_model.h - the reference model of tests/golden/model, and copies of it to spoil. */
#ifndef DIP_TESTS_MODEL_GOLDEN_MODEL_H
#define DIP_TESTS_MODEL_GOLDEN_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "model/clip.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model"

static inline void copy_file(const char *to_dir, const char *to, const char *from)
{
    char *source = dip_path_join(GOLDEN, from), *target = dip_path_join(to_dir, to), *data;
    size_t n;
    assert_int_equal(dip_file_read(&data, &n, source, 1 << 24), DIP_OK);
    assert_int_equal(dip_file_write(target, data, n), DIP_OK);
    free(data);
    free(target);
    free(source);
}

static inline void copy_model(const char *dir)
{
    assert_int_equal(dip_remove_tree(dir), DIP_OK);
    assert_int_equal(dip_make_dirs(dir), DIP_OK);
    copy_file(dir, DIP_CONFIG_FILE, DIP_CONFIG_FILE);
    copy_file(dir, DIP_WEIGHTS_FILE, DIP_WEIGHTS_FILE);
    copy_file(dir, DIP_TOKENIZER_FILE, DIP_TOKENIZER_FILE);
}

/* Replace the first `old` in a file of the folder. */
static inline void edit_file(const char *dir, const char *name, const char *old, const char *new)
{
    char *path = dip_path_join(dir, name), *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 24), DIP_OK);
    char *place = strstr(text, old);
    assert_non_null(place);
    char *edited = dip_format("%.*s%s%s", (int)(place - text), text, new, place + strlen(old));
    assert_int_equal(dip_file_write(path, edited, strlen(edited)), DIP_OK);
    free(edited);
    free(text);
    free(path);
}

#endif
