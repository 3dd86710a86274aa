/* The program: a table of commands, help for them, and the way from a status to an exit status. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command.h"

extern const dip_command dip_command_tokenizer, dip_command_shard, dip_command_index,
    dip_command_pretrain, dip_command_zeroshot, dip_command_recall, dip_command_embed,
    dip_command_export, dip_command_inspect, dip_command_bench;

/* In the order of a project: words, data, training, judging, using. */
static const dip_command *const commands[] = {
    &dip_command_tokenizer, &dip_command_shard,  &dip_command_index, &dip_command_pretrain,
    &dip_command_zeroshot,  &dip_command_recall, &dip_command_embed, &dip_command_export,
    &dip_command_inspect,   &dip_command_bench,
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };
enum { EXIT_FAILED = 1, EXIT_REFUSED = 2 };

static const dip_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static void print_overview(FILE *out)
{
    fputs("Diptych " DIPTYCH_VERSION " - image-text pretraining\n"
          "\n"
          "SYNOPSIS\n"
          "    diptych COMMAND [OPTIONS]\n"
          "    diptych help [COMMAND]\n"
          "    diptych --version\n"
          "\n"
          "COMMANDS\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "    %-10s  %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n"
          "`diptych help COMMAND` describes a command and all of its options.\n",
          out);
}

static void print_page(const dip_command *command)
{
    fputs("NAME\n", stdout);
    printf("    diptych %s - %s\n", command->name, command->summary);
    fputs("\nSYNOPSIS\n", stdout);
    dip_print_lines(stdout, 4, command->usage);
    fputs("\nDESCRIPTION\n", stdout);
    dip_print_wrapped(stdout, 4, command->description);
    if (command->options) {
        fputs("\nOPTIONS\n", stdout);
        dip_config_print_help(command->options, stdout);
    }
    if (command->help) {
        fputc('\n', stdout);
        command->help();
    }
    fputs("\nEXIT STATUS\n"
          "    0  done\n"
          "    1  failed while running: an I/O error, not enough memory, a value that is\n"
          "       not finite, an interruption\n"
          "    2  refused: the command line, the configuration or an input is not what\n"
          "       it should be, or this build or machine cannot do it\n",
          stdout);
}

/* A sentence may hold names and bytes from files: none of them may reach the terminal as a
 * control sequence. One line a mistake, each with the program's and the command's name. */
static void print_error(const char *command, const char *text)
{
    bool line_start = true;
    for (const char *c = text; *c; c++) {
        if (line_start)
            fprintf(stderr, "diptych%s%s: ", command ? " " : "", command ? command : "");
        unsigned char byte = (unsigned char)*c;
        line_start = byte == '\n';
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f)
            fprintf(stderr, "\\x%02x", byte);
        else
            fputc(*c, stderr);
    }
    if (!line_start) fputc('\n', stderr);
}

static int refuse_command(const char *name)
{
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) names[i] = commands[i]->name;
    const char *nearest = dip_nearest_word(name, names, N_COMMANDS);
    dip_fail(DIP_CONFIG, "there is no command \"%.80s\"%s%s%s (`diptych help` lists them)", name,
             nearest ? ", did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
    print_error(NULL, dip_error());
    return EXIT_REFUSED;
}

static int refuse_extra_word(const char *word)
{
    dip_fail(DIP_CONFIG, "unexpected word \"%.80s\"", word);
    print_error(NULL, dip_error());
    return EXIT_REFUSED;
}

static int run_help(int argc, char **argv)
{
    if (argc > 1) return refuse_extra_word(argv[1]);
    if (argc == 0) {
        print_overview(stdout);
        return EXIT_SUCCESS;
    }
    const dip_command *command = find_command(argv[0]);
    if (!command) return refuse_command(argv[0]);
    print_page(command);
    return EXIT_SUCCESS;
}

static int exit_status(dip_status status)
{
    switch (status) {
    case DIP_OK:
        return EXIT_SUCCESS;
    case DIP_CONFIG:
    case DIP_FORMAT:
    case DIP_UNSUPPORTED:
        return EXIT_REFUSED;
    default:
        return EXIT_FAILED;
    }
}

static bool is_help_flag(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run_command(const dip_command *command, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (is_help_flag(argv[i])) {
            print_page(command);
            return EXIT_SUCCESS;
        }
    dip_fail(DIP_OK, "%s", ""); /* no sentence from before */
    dip_status status = command->run(argc, argv);
    if (status != DIP_OK)
        print_error(command->name, dip_error()[0] ? dip_error() : dip_status_text(status));
    if (status == DIP_CONFIG)
        fprintf(stderr, "`diptych help %s` describes the options.\n", command->name);
    return exit_status(status);
}

/* A descriptor that is closed at the start would be handed to the first file opened, and prints
 * would land in that file. Opened for reading, writes to it fail as they should. */
static void occupy_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) != fd)
            _exit(EXIT_FAILED);
}

/* Between two ops the OpenMP runtime spins for milliseconds by default, waiting for the next. On a
 * machine that is shared, the thread it waits for may be the one it keeps off its core: steps then
 * take several times as long (PERFORMANCE.md). A short spin loses nothing on a quiet machine. The
 * runtime reads its settings before main, so the program starts itself once more. */
static void spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "1000", 0) != 0) return;
    execv("/proc/self/exe", argv); /* returns only if it cannot; then we go on as we are */
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    occupy_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a reader that went away, and a full quota, are errors to report, */
    signal(SIGXFSZ, SIG_IGN); /* not reasons to vanish in the middle of a save */
    int result;
    if (argc < 2) {
        print_overview(stderr);
        result = EXIT_REFUSED;
    } else if (strcmp(argv[1], "help") == 0 || is_help_flag(argv[1])) {
        result = run_help(argc - 2, argv + 2);
    } else if (strcmp(argv[1], "--version") == 0) {
        result = argc > 2 ? refuse_extra_word(argv[2]) : EXIT_SUCCESS;
        if (argc == 2) printf("diptych %s\n", DIPTYCH_VERSION);
    } else {
        const dip_command *command = find_command(argv[1]);
        result = command ? run_command(command, argc - 2, argv + 2) : refuse_command(argv[1]);
    }
    /* Figures that did not arrive are a failure, however well the rest went. */
    errno = 0;
    bool lost = fflush(stdout) != 0;
    int reason = errno;
    if (lost || ferror(stdout)) {
        fprintf(stderr, "diptych: cannot write to standard output: %s\n",
                reason ? strerror(reason) : "an earlier write failed");
        if (result == EXIT_SUCCESS) result = EXIT_FAILED;
    }
    return result;
}
