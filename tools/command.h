/* command.h - what every `diptych COMMAND` is: a row in one table.
 *
 * A command parses its own options (core/config.h), prints figures on stdout, everything else on
 * stderr, and returns a status; diptych.c turns it into an exit status:
 * DIP_OK -> 0; DIP_CONFIG, DIP_FORMAT and DIP_UNSUPPORTED -> 2 (refused); others -> 1 (failed).
 *
 * Add one: tools/foo.c with `const dip_command dip_command_foo`, and its row in diptych.c. */
#ifndef DIP_TOOLS_COMMAND_H
#define DIP_TOOLS_COMMAND_H

#include "core/config.h"
#include "core/status.h"

typedef struct dip_command {
    const char *name;                /* "shard" */
    const char *summary;             /* one line for `diptych help` */
    const char *usage;               /* "diptych shard --input DIR --output 'OUT/{00000..}.tar'" */
    const char *description;         /* paragraphs of the help page, wrapped at 80 columns */
    const dip_option_table *options; /* NULL for a command with subcommands of its own */
    dip_status (*run)(int argc, char **argv); /* words after the command's name */
    void (*help)(void); /* more help text (subcommands, examples); may be NULL */
} dip_command;

#endif
