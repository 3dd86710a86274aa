/* The layers of ARCHITECTURE.md, read from the #include lines of every source file:
 *
 *     core <- kernels <- nn <- {vision, text};  kernels <- loss;  core <- data
 *     {vision, text, data} <- model <- train <- tools;  loss <- train
 *
 * vision, text, loss and data do not know each other. And every contract, that is a header right in
 * a room's folder, compiles alone; the headers of a backend may be templates. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "core/file.h"

/* A room, and the rooms it may include besides itself. */
static const struct {
    const char *room, *may_include;
} layers[] = {
    {"core", ""},
    {"kernels", "core"},
    {"nn", "core kernels"},
    {"vision", "core kernels nn"},
    {"text", "core kernels nn"},
    {"loss", "core kernels"},
    {"data", "core"},
    {"model", "core kernels nn vision text data"},
    {"train", "core kernels nn vision text data loss model"},
    {"tools", "core kernels nn vision text data loss model train"},
};
enum { N_ROOMS = sizeof layers / sizeof layers[0] };

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n)
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
    return false;
}

static bool may_include(const char *room, const char *other)
{
    if (strcmp(room, other) == 0) return true;
    for (int i = 0; i < N_ROOMS; i++)
        if (strcmp(layers[i].room, room) == 0) return has_word(layers[i].may_include, other);
    return false;
}

static void the_rule_itself(void **state)
{
    (void)state;
    assert_true(may_include("core", "core"));
    assert_true(may_include("text", "nn"));
    assert_true(may_include("model", "data"));
    assert_true(may_include("train", "loss"));
    assert_false(may_include("core", "kernels"));
    assert_false(may_include("data", "kernels"));
    assert_false(may_include("vision", "text"));
    assert_false(may_include("text", "loss"));
    assert_false(may_include("loss", "nn"));
    assert_false(may_include("model", "loss"));
    assert_false(may_include("kernels", "nn"));
    assert_false(may_include("model", "train"));
    assert_false(may_include("nn", "tests"));
}

typedef struct survey {
    int n_files, n_includes, n_wrong;
    char *headers; /* names of contracts, each in quotes, for a command line */
} survey;

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static void complain(survey *s, const char *path, int line, const char *name, const char *why)
{
    print_error("%s:%d: \"%s\" %s\n", path, line, name, why);
    s->n_wrong++;
}

/* Every #include "NAME" of one file. */
static void read_includes(survey *s, const char *room, const char *path)
{
    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 22), DIP_OK);
    int number = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        number++;
        char name[256];
        if (sscanf(line, " # include \"%255[^\"]\"", name) != 1) continue;
        s->n_includes++;
        char other[256];
        snprintf(other, sizeof other, "%s", name);
        char *slash = strchr(other, '/');
        if (!slash || strstr(name, "..")) {
            complain(s, path, number, name, "is not named from the root, as \"room/file.h\"");
            continue;
        }
        *slash = '\0';
        if (!may_include(room, other)) complain(s, path, number, name, "is not in a layer below");
        char *full = dip_path_join(TEST_SOURCE_DIR, name);
        if (!dip_path_exists(full)) complain(s, path, number, name, "is not there");
        free(full);
    }
    free(text);
}

static void walk(survey *s, const char *room, const char *dir_path)
{
    DIR *dir = opendir(dir_path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        char *path = dip_path_join(dir_path, entry->d_name);
        static const char *const endings[] = {".c", ".h", ".cc", ".cu", ".cuh"};
        if (dip_path_is_dir(path)) walk(s, room, path);
        for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
            if (ends_with(entry->d_name, endings[i])) {
                s->n_files++;
                read_includes(s, room, path);
                if (strcmp(endings[i], ".h") != 0 || !ends_with(dir_path, room)) continue;
                char *longer = dip_format("%s '%s'", s->headers ? s->headers : "", path);
                free(s->headers);
                s->headers = longer;
            }
        free(path);
    }
    closedir(dir);
}

static survey survey_all(void)
{
    survey s = {0};
    for (int i = 0; i < N_ROOMS; i++) {
        char *path = dip_path_join(TEST_SOURCE_DIR, layers[i].room);
        walk(&s, layers[i].room, path);
        free(path);
    }
    return s;
}

static void no_file_looks_up(void **state)
{
    (void)state;
    survey s = survey_all();
    free(s.headers);
    assert_true(s.n_files >= 20); /* the survey did see the project */
    assert_true(s.n_includes >= 40);
    assert_int_equal(s.n_wrong, 0);
}

/* One compiler run over all contracts, each a translation unit of its own. */
static void contracts_compile_alone(void **state)
{
    (void)state;
    if (system("command -v cc >/dev/null 2>&1") != 0) skip();
    survey s = survey_all();
    char *command = dip_format("cc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -x c "
                               "-I '%s' %s",
                               TEST_SOURCE_DIR, s.headers);
    int result = system(command);
    free(command);
    free(s.headers);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule_itself),
        cmocka_unit_test(no_file_looks_up),
        cmocka_unit_test(contracts_compile_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
