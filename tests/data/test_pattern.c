#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "data/pattern.h"

static void equals_braceexpand(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/pattern_expected.txt", "r");
    assert_non_null(file);
    char line[1000];
    int n_lines = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line, *pattern = strsep(&rest, "\t");
        dip_string_list paths;
        if (dip_pattern_expand(&paths, pattern) != DIP_OK) fail_msg("%s: %s", pattern, dip_error());
        size_t n = 0;
        for (char *path; (path = strsep(&rest, "\t")); n++) {
            if (n < paths.n_items) assert_string_equal(paths.items[n], path);
        }
        assert_int_equal(paths.n_items, n);
        dip_string_list_free(&paths);
        n_lines++;
    }
    fclose(file);
    assert_true(n_lines > 30);
}

static void refuses(const char *pattern, const char *part_of_message)
{
    dip_string_list paths;
    assert_int_equal(dip_pattern_expand(&paths, pattern), DIP_CONFIG);
    assert_int_equal(paths.n_items, 0);
    if (!strstr(dip_error(), part_of_message))
        fail_msg("'%s' not in: %s", part_of_message, dip_error());
    dip_string_list_free(&paths);
}

static void refuses_malformed_and_endless(void **state)
{
    (void)state;
    refuses("", "empty");
    refuses("a::", "empty");
    refuses("{a", "without");
    refuses("a}", "without");
    refuses("a}b{c", "without");
    refuses("{a,{b}", "without");
    refuses("pipe:cat x", "commands");
    refuses("{0..10000000}", "more than 10000000");
    refuses("{0..999999999999999999}", "more than 10000000");
    refuses("{-999999999999999999..99999999999999999}", "digits");
    refuses("{0..99999999999999999999999}", "digits");
    refuses("{1..10000}{1..10000}", "10000000");

    char deep[202];
    memset(deep, '{', 100);
    memset(deep + 100, '}', 100);
    deep[200] = 0;
    refuses(deep, "nested");

    char *text = malloc(5001); /* a path longer than the system takes */
    memset(text, 'x', 5000);
    text[5000] = 0;
    refuses(text, "5000 bytes");
    free(text);

    char bomb[60 * 3 + 1] = ""; /* 2^60 paths */
    for (int i = 0; i < 30; i++) strcat(bomb, "{a,b}");
    refuses(bomb, "10000000");
}

static void makes_long_lists(void **state)
{
    (void)state;
    dip_string_list paths;
    assert_int_equal(dip_pattern_expand(&paths, "s/{000000..099999}.tar"), DIP_OK);
    assert_int_equal(paths.n_items, 100000);
    assert_string_equal(paths.items[99999], "s/099999.tar");
    dip_string_list_free(&paths);
    dip_string_list_free(&paths); /* an emptied list is fine */
}

static void write_text(const char *path)
{
    assert_int_equal(dip_file_write(path, "x", 1), DIP_OK);
}

#define FOLDER TEST_BINARY_DIR "/scratch/pattern"

static void lists_folders_and_checks_files(void **state)
{
    (void)state;
    dip_string_list paths;
    assert_int_equal(dip_remove_tree(FOLDER), DIP_OK);
    assert_int_equal(dip_make_dirs(FOLDER "/empty"), DIP_OK);
    assert_int_equal(dip_make_dirs(FOLDER "/folder.tar.d"), DIP_OK);
    write_text(FOLDER "/b.tar");
    write_text(FOLDER "/a.tar");
    write_text(FOLDER "/c.tar.gz");
    write_text(FOLDER "/.tar");

    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER), DIP_OK);
    assert_int_equal(paths.n_items, 2);
    assert_string_equal(paths.items[0], FOLDER "/a.tar");
    assert_string_equal(paths.items[1], FOLDER "/b.tar");
    dip_string_list_free(&paths);

    refuses(FOLDER "/empty", "no *.tar");

    /* twice is a warning only */
    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER "/{a,b,a}.tar"), DIP_OK);
    assert_int_equal(paths.n_items, 3);
    dip_string_list_free(&paths);

    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER "/{a,b,x1,empty}.tar"), DIP_CONFIG);
    assert_int_equal(paths.n_items, 0);
    assert_non_null(strstr(dip_error(), "2 of 4"));
    assert_non_null(strstr(dip_error(), "/x1.tar: No such file"));
    assert_null(strstr(dip_error(), "/a.tar"));

    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER "/{000..029}.tar"), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "/019.tar"));
    assert_null(strstr(dip_error(), "/020.tar"));
    assert_non_null(strstr(dip_error(), "and 10 more"));

    /* a pipe that never answers is not opened */
    assert_int_equal(mkfifo(FOLDER "/pipe.tar", 0600), 0);
    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER "/pipe.tar"), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "not a regular file"));
    assert_int_equal(dip_pattern_expand_files(&paths, FOLDER "/{empty,a.tar}"), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "is a folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_braceexpand),
        cmocka_unit_test(refuses_malformed_and_endless),
        cmocka_unit_test(makes_long_lists),
        cmocka_unit_test(lists_folders_and_checks_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
