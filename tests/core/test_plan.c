#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/plan.h"
#include "sanitizers.h"

#if UNDER_ASAN
#include <sanitizer/asan_interface.h>
#endif

static void regions_are_apart_aligned_and_zero(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 64, 0, 1000, 63, 5000000, 65};
    enum { N = sizeof sizes / sizeof sizes[0] };
    dip_plan *plan;
    dip_region handles[DIP_N_SPACES][N];
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    for (int space = 0; space < DIP_N_SPACES; space++)
        for (int i = 0; i < N; i++) {
            handles[space][i] = dip_plan_book(plan, "region", (dip_space)space, sizes[i]);
            assert_true(handles[space][i] >= 0);
        }
    assert_int_equal(dip_plan_allocate(plan), DIP_OK);
    for (int space = 0; space < DIP_N_SPACES; space++) {
        const unsigned char *end = NULL;
        for (int i = 0; i < N; i++) {
            unsigned char *p = dip_plan_ptr(plan, handles[space][i]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            if (end) assert_true(p >= end + 64); /* a gap between any two */
            for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(p[k], 0);
            memset(p, 0xab, sizes[i]);
            end = p + sizes[i];
        }
        assert_true(dip_plan_bytes(plan, (dip_space)space) >= 5001193);
    }
    assert_null(dip_plan_ptr(plan, -1));
    assert_int_equal(dip_plan_total_bytes(plan), 5 * dip_plan_bytes(plan, DIP_SPACE_PARAM));
    dip_plan_free(plan);
    dip_plan_free(NULL);
}

static void scratch_shares_memory_as_on_a_stack(void **state)
{
    (void)state;
    dip_plan *plan;
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    dip_region outer = dip_plan_book(plan, "outer", DIP_SPACE_SCRATCH, 1000);
    size_t mark = dip_plan_mark(plan);
    dip_region a = dip_plan_book(plan, "a", DIP_SPACE_SCRATCH, 5000);
    dip_region saved = dip_plan_book(plan, "saved", DIP_SPACE_SAVED, 100);
    dip_plan_release(plan, mark);
    dip_region b1 = dip_plan_book(plan, "b1", DIP_SPACE_SCRATCH, 3000);
    dip_region b2 = dip_plan_book(plan, "b2", DIP_SPACE_SCRATCH, 3000);
    dip_plan_release(plan, mark);
    assert_int_equal(dip_plan_allocate(plan), DIP_OK);
    char *p_outer = dip_plan_ptr(plan, outer), *p_a = dip_plan_ptr(plan, a);
    char *p_b1 = dip_plan_ptr(plan, b1), *p_b2 = dip_plan_ptr(plan, b2);
    assert_ptr_equal(p_a, p_b1);
    assert_true(p_outer + 1000 <= p_a);
    assert_true(p_b1 + 3000 <= p_b2);
    size_t peak = dip_plan_bytes(plan, DIP_SPACE_SCRATCH);
    assert_true(peak >= 7000 && peak < 9000); /* not 12,000 */
    /* All of every region can be used, whatever else lies there. */
    memset(p_a, 1, 5000);
    memset(p_b1, 2, 3000);
    memset(p_b2, 3, 3000);
    memset(dip_plan_ptr(plan, saved), 4, 100);
    assert_int_equal(p_b1[2999], 2);
    dip_plan_free(plan);
}

static void gaps_are_poisoned_under_asan(void **state)
{
    (void)state;
#if UNDER_ASAN
    dip_plan *plan;
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    dip_region a = dip_plan_book(plan, "a", DIP_SPACE_GRAD, 100);
    dip_region b = dip_plan_book(plan, "b", DIP_SPACE_GRAD, 64);
    assert_int_equal(dip_plan_allocate(plan), DIP_OK);
    char *p_a = dip_plan_ptr(plan, a), *p_b = dip_plan_ptr(plan, b);
    assert_false(__asan_address_is_poisoned(p_a + 99));
    assert_true(__asan_address_is_poisoned(p_a + 100));
    assert_true(__asan_address_is_poisoned(p_b - 1));
    assert_true(__asan_address_is_poisoned(p_b + 64));
    dip_plan_free(plan);
#else
    skip();
#endif
}

static void *refuse(void *context, size_t n_bytes)
{
    (void)n_bytes;
    ++*(int *)context;
    return NULL;
}
static void release(void *context, void *pointer)
{
    (void)context;
    free(pointer);
}

static void no_memory_is_named(void **state)
{
    (void)state;
    int n_calls = 0;
    dip_memory_source source = {refuse, release, &n_calls, 256, 0};
    dip_plan *plan;
    assert_int_equal(dip_plan_init(&plan, &source), DIP_OK);
    dip_plan_book(plan, "small", DIP_SPACE_STATE, 10);
    dip_plan_book(plan, "adam.m", DIP_SPACE_STATE, 4096);
    assert_int_equal(dip_plan_allocate(plan), DIP_NOMEM);
    assert_int_equal(n_calls, 1);
    assert_non_null(strstr(dip_error(), "optimizer state"));
    assert_non_null(strstr(dip_error(), "adam.m with 4096"));
    dip_plan_free(plan);
}

static void absurd_sizes_are_refused(void **state)
{
    (void)state;
    dip_plan *plan;
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    dip_plan_book(plan, "huge", DIP_SPACE_SAVED, SIZE_MAX - 5);
    dip_plan_book(plan, "more", DIP_SPACE_SAVED, SIZE_MAX / 2);
    assert_int_equal(dip_plan_allocate(plan), DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "huge"));
    dip_plan_free(plan);
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    for (int i = 0; i < 64; i++) /* each alone is small enough, the sum is not */
        dip_plan_book(plan, "part", DIP_SPACE_SAVED, SIZE_MAX / 20);
    assert_int_equal(dip_plan_allocate(plan), DIP_NOMEM);
    dip_plan_free(plan);
}

static void the_table_names_everything(void **state)
{
    (void)state;
    dip_plan *plan;
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(dip_plan_init(&plan, NULL), DIP_OK);
    dip_plan_book(plan, "little", DIP_SPACE_PARAM, 100);
    dip_plan_book(plan, "large", DIP_SPACE_PARAM, 3 << 20);
    FILE *out = open_memstream(&text, &n);
    dip_plan_print(plan, out);
    fclose(out);
    const char *little = strstr(text, "little"), *large = strstr(text, "large");
    assert_non_null(little);
    assert_true(large && large < little); /* largest first */
    assert_non_null(strstr(text, "parameters"));
    assert_non_null(strstr(text, "3.0 MiB"));
    assert_non_null(strstr(text, "100 B"));
    assert_non_null(strstr(text, "total"));
    assert_null(strstr(text, "gradients")); /* empty spaces are left out */
    free(text);
    dip_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_are_apart_aligned_and_zero),
        cmocka_unit_test(scratch_shares_memory_as_on_a_stack),
        cmocka_unit_test(gaps_are_poisoned_under_asan),
        cmocka_unit_test(no_memory_is_named),
        cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(the_table_names_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
