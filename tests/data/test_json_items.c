/* Arrays of a large JSON object, item by item: what is found, what is passed over, what is refused,
 * and that every cut of a file is noticed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/scratch.h"
#include "data/pairs/json_items.h"

static const char *folder;

static char *put_text(const char *text)
{
    char *path = dip_path_join(folder, "a.json");
    assert_int_equal(dip_file_write(path, text, strlen(text)), DIP_OK);
    return path;
}

/* Sum of the numbers in the array under "x", -1 for an item that is no valid JSON. */
static dip_status sum_of(const char *text, double *sum)
{
    char *path = put_text(text);
    dip_json_file file;
    dip_json_items items;
    *sum = 0;
    dip_status status = dip_json_file_open(&file, path);
    if (status == DIP_OK) status = dip_json_file_array(&items, &file, "x");
    while (status == DIP_OK) {
        cJSON *item;
        status = dip_json_items_next(&items, &item);
        if (status == DIP_OK) *sum += item ? item->valuedouble : -1;
        cJSON_Delete(item);
    }
    dip_json_file_close(&file);
    free(path);
    return status;
}

static void items_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double sum;
    } rows[] = {
        {"{\"x\":[1,2,3]}", 6},
        {" \n{ \"x\" : [ 1 , 2 ] , \"y\" : 5 }\n ", 3},
        {"\xef\xbb\xbf{\"x\":[7]}", 7},
        {"{\"x\":[]}", 0},
        {"{\"y\":[4],\"x\":[5],\"x\":[6]}", 5}, /* the first of two */
        {"{\"y\":{\"x\":[9]},\"z\":\"]}\\\"\\\\\",\"w\":[[\"[\"]],\"x\":[5]}", 5},
        {"{\"x\":[1,{\"a\":1,\"a\":2},-Inf,\"\\ud800\",10]}", 8},
        {"{\"y\":null,\"q\":true,\"r\":-1.5e3,\"x\":[1]}", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double sum;
        if (sum_of(rows[i].text, &sum) != DIP_END) fail_msg("%s: %s", rows[i].text, dip_error());
        assert_true(sum == rows[i].sum);
    }
}

static void what_is_not_whole_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        " ",
        "[1]",
        "{\"x\":[1]} 2",
        "{\"x\":[1]}}",
        "{\"x\":[1]",
        "{\"x\":[\"a]}",
        "{\"x\":[1 2]}",
        "{\"x\":[1}}",
        "{\"x\":[{} {}]}",
        "{\"x\":5}",
        "{\"x\":{}}",
        "{\"x\" [1]}",
        "{x:[1]}",
        "{\"y\":,\"x\":[1]}",
        "{\"y\":1 \"x\":[1]}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double sum;
        dip_status status = sum_of(rows[i], &sum);
        if (status != DIP_FORMAT) fail_msg("'%s' gives %s", rows[i], dip_status_text(status));
    }
    double sum;
    assert_int_equal(sum_of("{\"y\":[1]}", &sum), DIP_END);
}

static void every_cut_is_noticed(void **state)
{
    (void)state;
    const char *whole =
        "{\"y\": [\"a\\\"\", {\"b\": [1]}], \"x\": [{\"c\": \"]\"}, 2, 3], \"z\": 0}";
    for (size_t n = 0; n < strlen(whole); n++) {
        char *cut = strndup(whole, n);
        double sum;
        assert_int_equal(sum_of(cut, &sum), DIP_FORMAT);
        free(cut);
    }
}

int main(void)
{
    folder = scratch_init("test_json_items");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_are_found),
        cmocka_unit_test(what_is_not_whole_is_refused),
        cmocka_unit_test(every_cut_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
