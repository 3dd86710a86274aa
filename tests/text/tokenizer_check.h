/* tokenizer_check.h - what the tests of text/tokenizer.h share. */
#ifndef DIP_TESTS_TEXT_TOKENIZER_CHECK_H
#define DIP_TESTS_TEXT_TOKENIZER_CHECK_H

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "text/tokenizer.h"

#define GOLDEN(name) TEST_SOURCE_DIR "/tests/golden/" name

static inline void must(dip_status status)
{
    if (status != DIP_OK) fail_msg("%s: %s", dip_status_text(status), dip_error());
}

static inline void must_say(const char *words)
{
    if (!strstr(dip_error(), words)) fail_msg("'%s' does not say '%s'", dip_error(), words);
}

#endif
