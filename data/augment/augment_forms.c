#include "data/augment/augment_forms.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/number.h"

enum { MAX_SIDE = 65535 };

/* clang-format off */
#define SIZE_ARG {"size", DIP_ARG_SIZE, 0, 0, 1, MAX_SIDE}
#define P_ARG(p) {"p", DIP_ARG_NUMBER, p, p, 0, 1}
#define VALUE_ARG(name) {name, DIP_ARG_VALUE, 0, 0, 0, 255}
#define FACTOR_ARG(name) {name, DIP_ARG_AROUND_ONE, 1, 1, 0, 1000}
/* clang-format on */

const dip_op_form dip_op_forms[DIP_N_AUGMENT_KINDS] = {
    [DIP_AUGMENT_DECODE] = {"decode", {{0}}},
    [DIP_AUGMENT_RANDOM_RESIZED_CROP] = {"random_resized_crop",
                                         {SIZE_ARG,
                                          {"scale", DIP_ARG_RANGE, 0.9, 1, 1e-6, 1},
                                          {"ratio", DIP_ARG_RANGE, 3.0 / 4, 4.0 / 3, 0.01, 100}}},
    [DIP_AUGMENT_RESIZE] = {"resize", {SIZE_ARG}},
    [DIP_AUGMENT_CENTER_CROP] = {"center_crop", {SIZE_ARG}},
    [DIP_AUGMENT_FLIP] = {"flip", {P_ARG(0.5)}},
    [DIP_AUGMENT_COLOR_JITTER] = {"color_jitter",
                                  {FACTOR_ARG("brightness"),
                                   FACTOR_ARG("contrast"),
                                   FACTOR_ARG("saturation"),
                                   {"hue", DIP_ARG_AROUND_ZERO, 0, 0, -0.5, 0.5},
                                   P_ARG(1)}},
    [DIP_AUGMENT_GRAYSCALE] = {"grayscale", {P_ARG(0.1)}},
    [DIP_AUGMENT_GAUSSIAN_BLUR] = {"gaussian_blur",
                                   {{"sigma", DIP_ARG_RANGE, 0.1, 2, 0, 1000}, P_ARG(1)}},
    [DIP_AUGMENT_ROTATE] = {"rotate",
                            {{"degrees", DIP_ARG_AROUND_ZERO, NAN, NAN, -360, 360},
                             P_ARG(1),
                             {"fill", DIP_ARG_COUNT, 0, 0, 0, 255},
                             {"filter", DIP_ARG_FILTER, 0, 0, 0, 1}}},
    [DIP_AUGMENT_NOISE] = {"noise", {{"sigma", DIP_ARG_RANGE, NAN, NAN, 0, 1}, P_ARG(1)}},
    [DIP_AUGMENT_CUTOUT] =
        {"cutout", {{"size", DIP_ARG_COUNT, NAN, NAN, 2, MAX_SIDE}, P_ARG(1), VALUE_ARG("value")}},
    [DIP_AUGMENT_RANDOM_ERASING] = {"random_erasing",
                                    {P_ARG(0.5),
                                     {"scale", DIP_ARG_RANGE, 0.02, 0.33, 0, 1},
                                     {"ratio", DIP_ARG_RANGE, 0.3, 3.3, 0.01, 100},
                                     VALUE_ARG("value")}},
    [DIP_AUGMENT_SOLARIZE] = {"solarize",
                              {{"threshold", DIP_ARG_COUNT, 128, 128, 0, 256}, P_ARG(0.5)}},
    [DIP_AUGMENT_MIXUP] = {"mixup", {{"alpha", DIP_ARG_NUMBER, NAN, NAN, 0.001, 1000}, P_ARG(1)}},
    [DIP_AUGMENT_CUTMIX] = {"cutmix", {{"alpha", DIP_ARG_NUMBER, NAN, NAN, 0.001, 1000}, P_ARG(1)}},
};

int dip_op_form_n_args(const dip_op_form *form)
{
    int n = 0;
    while (n < DIP_AUGMENT_MAX_ARGS && form->args[n].name) n++;
    return n;
}

bool dip_arg_takes_range(dip_arg_type type)
{
    return type == DIP_ARG_RANGE || type == DIP_ARG_AROUND_ONE || type == DIP_ARG_AROUND_ZERO;
}

/* Asking. */

int dip_augmentation_views(const dip_augmentation *augmentation)
{
    return augmentation->n_views;
}

bool dip_augmentation_mixes(const dip_augmentation *augmentation)
{
    for (int v = 0; v < augmentation->n_views; v++)
        for (int i = 0; i < augmentation->views[v].n_ops; i++)
            if (dip_augment_is_mix(augmentation->views[v].ops[i].kind)) return true;
    return false;
}

dip_status dip_augmentation_check_size(const dip_augmentation *augmentation, int image_size)
{
    for (int v = 0; v < augmentation->n_views; v++) {
        const dip_augment_op *op = &augmentation->views[v].ops[0];
        if (augmentation->views[v].n_ops == 0 || !dip_augment_is_cut(op->kind)) continue;
        double size = op->args[DIP_CROP_SIZE].low;
        if (size != 0 && size != image_size)
            return dip_fail(DIP_CONFIG,
                            "augmentations: %s(%.0f), but the model's images are %d x %d; leave "
                            "the size out",
                            dip_op_forms[op->kind].name, size, image_size, image_size);
    }
    return DIP_OK;
}

/* Writing. */

static void print_arg(FILE *out, const dip_arg_form *form, dip_augment_arg arg)
{
    char low[DIP_NUMBER_TEXT_BYTES], high[DIP_NUMBER_TEXT_BYTES];
    dip_number_write_double(low, arg.low);
    dip_number_write_double(high, arg.high);
    fprintf(out, "%s=", form->name);
    if (form->type == DIP_ARG_FILTER)
        fputs(arg.low != 0 ? "bilinear" : "nearest", out);
    else if (form->type == DIP_ARG_VALUE && arg.low == DIP_AUGMENT_VALUE_RANDOM)
        fputs("random", out);
    else if (dip_arg_takes_range(form->type))
        fprintf(out, "%s..%s", low, high);
    else
        fputs(low, out);
}

static void print_op(FILE *out, const dip_augment_op *op)
{
    const dip_op_form *form = &dip_op_forms[op->kind];
    fprintf(out, ", %s", form->name);
    const char *before = "(";
    for (int i = 0; i < dip_op_form_n_args(form); i++) {
        if (form->args[i].type == DIP_ARG_SIZE && op->args[i].low == 0) continue;
        fputs(before, out);
        print_arg(out, &form->args[i], op->args[i]);
        before = ", ";
    }
    if (before[0] == ',') fputc(')', out);
}

dip_status dip_augmentation_print(char **text, const dip_augmentation *augmentation)
{
    size_t n_bytes;
    *text = NULL;
    FILE *out = open_memstream(text, &n_bytes);
    if (!out) return dip_fail(DIP_NOMEM, "no memory for the text of the augmentations");
    for (int v = 0; v < augmentation->n_views; v++) {
        fputs(v ? " | decode" : "decode", out);
        for (int i = 0; i < augmentation->views[v].n_ops; i++)
            print_op(out, &augmentation->views[v].ops[i]);
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(*text);
        *text = NULL;
        return dip_fail(DIP_NOMEM, "no memory for the text of the augmentations");
    }
    return DIP_OK;
}
