/* augment_forms.h - inside data/: every operation's name and arguments, for reading and printing.
 *
 * A row is an operation: its arguments in order, what they are when left out, and their limits. */
#ifndef DIP_DATA_AUGMENT_FORMS_H
#define DIP_DATA_AUGMENT_FORMS_H

#include "data/augment/augment_list.h"

/* How an argument is read. */
typedef enum dip_arg_type {
    DIP_ARG_NUMBER,
    DIP_ARG_COUNT,       /* a whole number */
    DIP_ARG_SIZE,        /* a whole number that need not be given: 0 */
    DIP_ARG_RANGE,       /* LOW..HIGH; x is x..x */
    DIP_ARG_AROUND_ONE,  /* x is 1-x..1+x, not below 0 */
    DIP_ARG_AROUND_ZERO, /* x is -x..x */
    DIP_ARG_VALUE,       /* a whole number or the word random */
    DIP_ARG_FILTER       /* nearest or bilinear */
} dip_arg_type;

typedef struct dip_arg_form {
    const char *name;
    dip_arg_type type;
    double low, high; /* when left out; NAN: it must be given */
    double min, max;  /* of the low and the high end */
} dip_arg_form;

typedef struct dip_op_form {
    const char *name;
    dip_arg_form args[DIP_AUGMENT_MAX_ARGS];
} dip_op_form;

extern const dip_op_form dip_op_forms[DIP_N_AUGMENT_KINDS];

int dip_op_form_n_args(const dip_op_form *form);
bool dip_arg_takes_range(dip_arg_type type);

#endif
