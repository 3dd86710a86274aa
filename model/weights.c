#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/clip.h"
#include "model/safetensors.h"

/* ---- write ----------------------------------------------------------------------------- */

dip_status dip_weights_write(const char *path, const dip_param_table *table, const float *values)
{
    size_t n = (size_t)table->n_params;
    dip_tensor *tensors = calloc(n ? n : 1, sizeof *tensors);
    if (!tensors) return dip_fail(DIP_NOMEM, "no memory for the list of %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        const dip_param *param = &table->params[i];
        tensors[i] = (dip_tensor){.name = param->name,
                                  .dtype = DIP_ST_F32,
                                  .n_dims = param->n_dims,
                                  .data = values + param->offset,
                                  .n_bytes = (size_t)param->n_elements * sizeof(float)};
        for (int d = 0; d < param->n_dims; d++) tensors[i].shape[d] = param->shape[d];
    }
    dip_status status = dip_safetensors_write(path, tensors, n);
    free(tensors);
    return status;
}

/* ---- read ------------------------------------------------------------------------------ */

/* Everything that is wrong, as far as it fits one message. */
typedef struct complaints {
    char text[3000];
    size_t n_used;
    int n, n_left_out;
} complaints;

static void complain(complaints *list, const char *format, ...) DIP_PRINTF(2, 3);
static void complain(complaints *list, const char *format, ...)
{
    char item[512];
    va_list args;
    va_start(args, format);
    vsnprintf(item, sizeof item, format, args);
    va_end(args);
    size_t n = strlen(item);
    list->n++;
    if (list->n_used + n + 3 > sizeof list->text) {
        list->n_left_out++;
        return;
    }
    list->n_used += (size_t)snprintf(list->text + list->n_used, sizeof list->text - list->n_used,
                                     "\n  %s", item);
}

/* "[512, 3, 4, 4]" */
static const char *shape_text(char out[160], const int64_t *shape, int n_dims)
{
    size_t used = 0;
    out[used++] = '[';
    for (int i = 0; i < n_dims && used < 130; i++)
        used +=
            (size_t)snprintf(out + used, 160 - used, i ? ", %lld" : "%lld", (long long)shape[i]);
    out[used++] = ']';
    out[used] = '\0';
    return out;
}

/* A name from a file, short and without control bytes. */
static const char *shown_name(char out[DIP_PARAM_NAME_BYTES], const char *name)
{
    size_t i = 0;
    for (; name[i] && i < DIP_PARAM_NAME_BYTES - 1; i++)
        out[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    out[i] = '\0';
    return out;
}

static bool same_shape(const dip_param *param, const dip_tensor *tensor)
{
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++) n *= tensor->shape[i];
    /* Some files store the scalar logit_scale as a vector of one. */
    if (param->n_elements == 1 && n == 1) return true;
    if (param->n_dims != tensor->n_dims) return false;
    for (int i = 0; i < param->n_dims; i++)
        if (param->shape[i] != tensor->shape[i]) return false;
    return true;
}

static bool is_float(const dip_tensor *tensor)
{
    return tensor->dtype == DIP_ST_F32 || tensor->dtype == DIP_ST_BF16 ||
           tensor->dtype == DIP_ST_F16 || tensor->dtype == DIP_ST_F64;
}

static void compare(complaints *list, const dip_param_table *table, const dip_safetensors *file)
{
    char has[160], wants[160], name[DIP_PARAM_NAME_BYTES];
    for (int i = 0; i < table->n_params; i++) {
        const dip_param *param = &table->params[i];
        const dip_tensor *tensor = dip_safetensors_find(file, param->name);
        shape_text(wants, param->shape, param->n_dims);
        if (!tensor)
            complain(list, "%s %s is missing", param->name, wants);
        else if (!is_float(tensor))
            complain(list, "%s is not of type F32, BF16, F16 or F64", param->name);
        else if (!same_shape(param, tensor))
            complain(list, "%s has the shape %s, the model has %s", param->name,
                     shape_text(has, tensor->shape, tensor->n_dims), wants);
    }
    size_t n;
    const dip_tensor *tensors = dip_safetensors_tensors(file, &n);
    for (size_t i = 0; i < n; i++)
        if (dip_param_find(table, tensors[i].name) < 0)
            complain(list, "%s %s is unknown to the model", shown_name(name, tensors[i].name),
                     shape_text(has, tensors[i].shape, tensors[i].n_dims));
}

dip_status dip_weights_read(float *values, const dip_param_table *table, const char *path)
{
    dip_safetensors *file = NULL;
    complaints list = {0};
    dip_status status;
    DIP_TRY(dip_safetensors_open(&file, path));
    compare(&list, table, file);
    if (list.n > 0) {
        char more[64] = "";
        if (list.n_left_out > 0) snprintf(more, sizeof more, "\n  and %d more", list.n_left_out);
        status = dip_fail(DIP_FORMAT, "%s does not fit the model, %d tensor%s differ%s:%s%s", path,
                          list.n, list.n == 1 ? "" : "s", list.n == 1 ? "s" : "", list.text, more);
        goto fail;
    }
    memset(values, 0, (size_t)table->n_values * sizeof *values);
    for (int i = 0; i < table->n_params; i++) {
        const dip_param *param = &table->params[i];
        float *row = values + param->offset;
        DIP_TRY_GOTO(dip_tensor_to_float(row, dip_safetensors_find(file, param->name)));
        for (int64_t j = 0; j < param->n_elements; j++)
            if (!isfinite(row[j])) {
                status = dip_fail(DIP_FORMAT, "%s: element %lld of %s is not finite", path,
                                  (long long)j, param->name);
                goto fail;
            }
    }
    status = DIP_OK;
fail:
    dip_safetensors_close(file);
    return status;
}
