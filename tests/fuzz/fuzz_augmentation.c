/* Lists of augmentations: what is read can be printed, and reads back as the same. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "data/augment/augment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dip_augmentation *list, *again;
    char *text = strndup((const char *)data, n), *printed, *printed_again;
    FUZZ_CHECK(text);
    dip_status status = dip_augmentation_parse(&list, text);
    free(text);
    FUZZ_CHECK(status == DIP_OK || (status == DIP_CONFIG && dip_error()[0]));
    if (status != DIP_OK) return 0;
    FUZZ_CHECK(dip_augmentation_views(list) >= 1);
    FUZZ_CHECK(dip_augmentation_print(&printed, list) == DIP_OK);
    FUZZ_CHECK(dip_augmentation_parse(&again, printed) == DIP_OK);
    FUZZ_CHECK(dip_augmentation_print(&printed_again, again) == DIP_OK);
    FUZZ_CHECK(strcmp(printed, printed_again) == 0);
    FUZZ_CHECK(dip_augmentation_views(again) == dip_augmentation_views(list));
    if (strchr(printed, '6')) fuzz_canary("`", 1); /* in no seed, nor in what they leave out */
    free(printed);
    free(printed_again);
    dip_augmentation_free(list);
    dip_augmentation_free(again);
    return 0;
}
