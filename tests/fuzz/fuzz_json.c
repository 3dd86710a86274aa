/* JSON: what is read can be printed, and reads back as the same. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static char *print(const cJSON *value, bool pretty)
{
    char *text;
    FUZZ_CHECK(dip_json_print(&text, value, pretty) == DIP_OK);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    cJSON *value, *again;
    if (dip_json_parse(&value, (const char *)data, n, "input") != DIP_OK) return 0;
    char *pretty = print(value, true), *line = print(value, false);
    FUZZ_CHECK(dip_json_parse(&again, pretty, strlen(pretty), "printed") == DIP_OK);
    char *line_again = print(again, false);
    FUZZ_CHECK(strcmp(line, line_again) == 0);
    fuzz_canary(line, strlen(line));
    free(pretty);
    free(line);
    free(line_again);
    cJSON_Delete(value);
    cJSON_Delete(again);
    return 0;
}
