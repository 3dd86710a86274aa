/* The list of augmentations, from text. */
#include "data/augment/augment_forms.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h" /* dip_nearest_word */
#include "core/number.h"
#include "core/utf8.h"

/* A text: more than any list is long when it is printed with all that can be in it. */
enum { MAX_TEXT_BYTES = 1 << 18, MAX_WORD_BYTES = 64, QUOTED_BYTES = 61 };

typedef struct parser {
    const char *text, *at;
} parser;

static dip_status refuse(const parser *p, const char *where, const char *format, ...)
    DIP_PRINTF(3, 4);

static dip_status refuse(const parser *p, const char *where, const char *format, ...)
{
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    /* All before it was understood, so it is ASCII: a byte is a character. */
    return dip_fail(DIP_CONFIG, "augmentations, character %td: %s", where - p->text + 1, what);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool ends_word(char c)
{
    return c == '\0' || is_blank(c) || strchr(",|()=", c);
}

static void skip_blanks(parser *p)
{
    while (is_blank(*p->at)) p->at++;
}

/* The word here; one longer than anything that can stand here is refused, never cut. */
static dip_status take_word(parser *p, char word[MAX_WORD_BYTES])
{
    const char *where = p->at;
    size_t n = 0;
    for (; !ends_word(*p->at); p->at++) {
        if (n + 1 == MAX_WORD_BYTES)
            return refuse(p, where, "a word or number of more than %d bytes", MAX_WORD_BYTES - 1);
        word[n++] = *p->at;
    }
    word[n] = '\0';
    return DIP_OK;
}

/* A word for a message. */
static const char *quote(char buf[QUOTED_BYTES], const char *word)
{
    return dip_text_quote(buf, QUOTED_BYTES, word);
}

static dip_status refuse_word(const parser *p, const char *where, const char *what,
                              const char *word, const char *const *known, size_t n_known)
{
    char list[320], quoted[QUOTED_BYTES];
    size_t used = 0;
    for (size_t i = 0; i < n_known; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", known[i]);
    const char *nearest = dip_nearest_word(word, known, n_known);
    return refuse(p, where, "\"%s\" is no %s%s%s%s; known: %s", quote(quoted, word), what,
                  nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "",
                  n_known ? list : "none");
}

static dip_status refuse_op(const parser *p, const char *where, const char *word)
{
    const char *names[DIP_N_AUGMENT_KINDS];
    for (int i = 0; i < DIP_N_AUGMENT_KINDS; i++) names[i] = dip_op_forms[i].name;
    return refuse_word(p, where, "augmentation", word, names, DIP_N_AUGMENT_KINDS);
}

static dip_status read_number(const parser *p, double *out, const dip_arg_form *form,
                              const char *where, const char *word)
{
    char quoted[QUOTED_BYTES];
    dip_number_result result = dip_number_read_double(out, word);
    if (result == DIP_NUMBER_TOO_LARGE)
        return refuse(p, where, "%s is too large: %s", form->name, quote(quoted, word));
    if (result != DIP_NUMBER_OK)
        return refuse(p, where, "%s must be %s, got \"%s\"", form->name,
                      form->type == DIP_ARG_FILTER      ? "nearest or bilinear"
                      : form->type == DIP_ARG_VALUE     ? "a number or random"
                      : dip_arg_takes_range(form->type) ? "a number or a range a..b"
                                                        : "a number",
                      quote(quoted, word));
    return DIP_OK;
}

static dip_status check_limits(const parser *p, const dip_arg_form *form, const char *where,
                               dip_augment_arg arg)
{
    char min[DIP_NUMBER_TEXT_BYTES], max[DIP_NUMBER_TEXT_BYTES];
    if (arg.low > arg.high) return refuse(p, where, "%s: a range rises, a..b", form->name);
    if (arg.low < form->min || arg.high > form->max) {
        dip_number_write_double(min, form->min);
        dip_number_write_double(max, form->max);
        return refuse(p, where, "%s must lie in %s..%s", form->name, min, max);
    }
    bool whole =
        form->type == DIP_ARG_COUNT || form->type == DIP_ARG_SIZE || form->type == DIP_ARG_VALUE;
    if (whole && arg.low != floor(arg.low))
        return refuse(p, where, "%s must be a whole number", form->name);
    return DIP_OK;
}

static dip_status read_value(const parser *p, dip_augment_arg *out, const dip_arg_form *form,
                             const char *where, char *word)
{
    if (form->type == DIP_ARG_FILTER &&
        (strcmp(word, "nearest") == 0 || strcmp(word, "bilinear") == 0)) {
        out->low = out->high = word[0] == 'b';
        return DIP_OK;
    }
    if (form->type == DIP_ARG_VALUE && strcmp(word, "random") == 0) {
        out->low = out->high = DIP_AUGMENT_VALUE_RANDOM;
        return DIP_OK;
    }
    char *dots = strstr(word, "..");
    if (dots && !dip_arg_takes_range(form->type))
        return refuse(p, where, "%s is one %s, not a range", form->name,
                      form->type == DIP_ARG_FILTER ? "word" : "number");
    if (dots) {
        *dots = '\0';
        DIP_TRY(read_number(p, &out->low, form, where, word));
        DIP_TRY(read_number(p, &out->high, form, where, dots + 2));
        return check_limits(p, form, where, *out);
    }
    double x;
    DIP_TRY(read_number(p, &x, form, where, word));
    if (form->type == DIP_ARG_FILTER)
        return refuse(p, where, "%s must be nearest or bilinear", form->name);
    if ((form->type == DIP_ARG_AROUND_ONE || form->type == DIP_ARG_AROUND_ZERO) && x < 0)
        return refuse(p, where, "%s as one number must not be below 0", form->name);
    double center = form->type == DIP_ARG_AROUND_ONE;
    *out = form->type == DIP_ARG_AROUND_ONE || form->type == DIP_ARG_AROUND_ZERO
               ? (dip_augment_arg){center - x, center + x}
               : (dip_augment_arg){x, x};
    if (form->type == DIP_ARG_AROUND_ONE && out->low < 0) out->low = 0;
    return check_limits(p, form, where, *out);
}

/* Which argument stands here: *word is its text afterwards, *place its number. */
static dip_status find_place(parser *p, int *place, const dip_op_form *form, int *next,
                             const char **where, char word[MAX_WORD_BYTES])
{
    const int n = dip_op_form_n_args(form);
    DIP_TRY(take_word(p, word));
    if (word[0] == '\0') return refuse(p, *where, "an argument is missing here");
    skip_blanks(p);
    if (*p->at == '=') {
        for (*place = 0; *place < n; ++*place)
            if (strcmp(form->args[*place].name, word) == 0) break;
        if (*place == n) {
            const char *names[DIP_AUGMENT_MAX_ARGS];
            for (int i = 0; i < n; i++) names[i] = form->args[i].name;
            char what[64];
            snprintf(what, sizeof what, "argument of %s", form->name);
            return refuse_word(p, *where, what, word, names, (size_t)n);
        }
        p->at++;
        skip_blanks(p);
        *where = p->at;
        DIP_TRY(take_word(p, word));
        skip_blanks(p);
        *next = n; /* a bare value after a named one has no place */
        return DIP_OK;
    }
    if (strstr(word, ".."))
        while (*next < n && !dip_arg_takes_range(form->args[*next].type)) ++*next;
    if (*next >= n)
        return refuse(p, *where, "%s takes %s%s here", form->name, n ? "no further " : "no ",
                      n ? "argument without a name" : "argument");
    *place = (*next)++;
    return DIP_OK;
}

static dip_status read_args(parser *p, dip_augment_op *op, const dip_op_form *form)
{
    bool given[DIP_AUGMENT_MAX_ARGS] = {false};
    int next = 0;
    for (;;) {
        skip_blanks(p);
        if (*p->at == ')' && next == 0) break; /* "()"; a comma leaves next or a named one behind */
        const char *where = p->at;
        char word[MAX_WORD_BYTES];
        int place = 0;
        DIP_TRY(find_place(p, &place, form, &next, &where, word));
        if (given[place]) return refuse(p, where, "%s is given twice", form->args[place].name);
        given[place] = true;
        if (word[0] == '\0') return refuse(p, where, "a value is missing here");
        DIP_TRY(read_value(p, &op->args[place], &form->args[place], where, word));
        if (*p->at == ')') break;
        if (*p->at != ',')
            return refuse(p, p->at, *p->at ? "',' or ')' is missing here" : "')' is missing here");
        p->at++;
    }
    p->at++;
    return DIP_OK;
}

static dip_status read_op(parser *p, dip_augment_op *op)
{
    const char *where = p->at;
    char word[MAX_WORD_BYTES];
    DIP_TRY(take_word(p, word));
    if (word[0] == '\0') return refuse(p, where, "an augmentation is missing here");
    int kind = 0;
    while (kind < DIP_N_AUGMENT_KINDS && strcmp(dip_op_forms[kind].name, word) != 0) kind++;
    if (kind == DIP_N_AUGMENT_KINDS) return refuse_op(p, where, word);
    const dip_op_form *form = &dip_op_forms[kind];
    *op = (dip_augment_op){.kind = (dip_augment_kind)kind, .p = 1};
    for (int i = 0; i < dip_op_form_n_args(form); i++)
        op->args[i] = (dip_augment_arg){form->args[i].low, form->args[i].high};
    skip_blanks(p);
    if (*p->at == '(') {
        p->at++;
        DIP_TRY(read_args(p, op, form));
    }
    for (int i = 0; i < dip_op_form_n_args(form); i++) {
        if (isnan(op->args[i].low))
            return refuse(p, where, "%s needs its %s", form->name, form->args[i].name);
        if (strcmp(form->args[i].name, "p") == 0) op->p = op->args[i].low;
    }
    skip_blanks(p);
    return DIP_OK;
}

/* May this operation stand here? */
static dip_status check_order(const parser *p, const char *where, const dip_augment_view *view,
                              dip_augment_kind kind, bool first)
{
    const char *name = dip_op_forms[kind].name;
    if (kind == DIP_AUGMENT_DECODE && !first)
        return refuse(p, where, "decode can only be the first");
    if (dip_augment_is_cut(kind) && view->n_ops > 0)
        return dip_augment_is_cut(view->ops[0].kind)
                   ? refuse(p, where, "%s and %s: one cut is enough",
                            dip_op_forms[view->ops[0].kind].name, name)
                   : refuse(p, where, "%s must stand before %s", name,
                            dip_op_forms[view->ops[0].kind].name);
    if (view->n_ops == DIP_AUGMENT_MAX_OPS)
        return refuse(p, where, "more than %d augmentations", (int)DIP_AUGMENT_MAX_OPS);
    return DIP_OK;
}

static dip_status read_view(parser *p, dip_augment_view *view)
{
    *view = (dip_augment_view){0};
    for (bool first = true;; first = false) {
        skip_blanks(p);
        const char *where = p->at;
        dip_augment_op op;
        DIP_TRY(read_op(p, &op));
        DIP_TRY(check_order(p, where, view, op.kind, first));
        if (op.kind != DIP_AUGMENT_DECODE) view->ops[view->n_ops++] = op;
        if (*p->at == '\0' || *p->at == '|') return DIP_OK;
        if (*p->at != ',') return refuse(p, p->at, "',' or '|' is missing here");
        p->at++;
    }
}

/* "2 x", or nothing: 1. */
static dip_status read_times(parser *p, int *times)
{
    *times = 1;
    skip_blanks(p);
    if (!is_digit(*p->at)) return DIP_OK;
    const char *where = p->at;
    int64_t n = 0;
    for (; is_digit(*p->at); p->at++)
        if (n <= DIP_AUGMENT_MAX_VIEWS) n = 10 * n + (*p->at - '0');
    skip_blanks(p);
    if (*p->at != 'x' || !is_blank(p->at[1]))
        return refuse(p, where, "a number here is a number of views: \"2 x LIST\"");
    p->at++;
    if (n < 1 || n > DIP_AUGMENT_MAX_VIEWS)
        return refuse(p, where, "there can be 1 to %d views", (int)DIP_AUGMENT_MAX_VIEWS);
    *times = (int)n;
    return DIP_OK;
}

static dip_status read_views(parser *p, dip_augmentation *out)
{
    for (;;) {
        int times;
        DIP_TRY(read_times(p, &times));
        const char *where = p->at;
        if (out->n_views + times > DIP_AUGMENT_MAX_VIEWS)
            return refuse(p, where, "there can be 1 to %d views", (int)DIP_AUGMENT_MAX_VIEWS);
        dip_augment_view *view = &out->views[out->n_views];
        DIP_TRY(read_view(p, view));
        for (int i = 1; i < times; i++) view[i] = *view;
        out->n_views += times;
        if (*p->at == '\0') break;
        p->at++;
    }
    if (dip_augmentation_mixes(out) && out->n_views > 1)
        return refuse(p, p->text, "mixup and cutmix need a list of one view, this has %d",
                      out->n_views);
    return DIP_OK;
}

dip_status dip_augmentation_parse(dip_augmentation **out, const char *text)
{
    *out = NULL;
    parser p = {text, text};
    if (strlen(text) > MAX_TEXT_BYTES)
        return dip_fail(DIP_CONFIG, "augmentations: a text of more than %d bytes",
                        (int)MAX_TEXT_BYTES);
    dip_augmentation *augmentation =
        calloc(1, sizeof *augmentation + DIP_AUGMENT_MAX_VIEWS * sizeof *augmentation->views);
    if (!augmentation) return dip_fail(DIP_NOMEM, "no memory for the augmentations");
    dip_status status = read_views(&p, augmentation);
    if (status == DIP_OK)
        *out = augmentation;
    else
        dip_augmentation_free(augmentation);
    return status;
}

void dip_augmentation_free(dip_augmentation *augmentation)
{
    free(augmentation);
}
