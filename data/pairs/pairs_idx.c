#include <inttypes.h>
#include <stdlib.h>

#include "core/file.h"
#include "data/pairs/idx.h"
#include "data/image/image.h"
#include "data/pairs/pairs_internal.h"

typedef struct idx_pairs {
    dip_idx images, labels;
    dip_line_list classes;
    dip_templates templates;
} idx_pairs;

static void close_idx(void *state)
{
    idx_pairs *s = state;
    if (!s) return;
    dip_idx_free(&s->images);
    dip_idx_free(&s->labels);
    dip_lines_free(&s->classes);
    dip_templates_free(&s->templates);
    free(s);
}

static char *idx_name(const void *state, int64_t index)
{
    (void)state;
    return dip_format("%" PRId64, index);
}

static dip_digest digest_idx(const void *state, dip_digest digest)
{
    const idx_pairs *s = state;
    digest = dip_digest_of(digest, s->images.data, (size_t)s->images.n_bytes);
    digest = dip_digest_of(digest, s->labels.data, (size_t)s->labels.n_bytes);
    for (size_t i = 0; i < s->classes.n; i++) digest = dip_digest_text(digest, s->classes.items[i]);
    for (size_t i = 0; i < s->templates.lines.n; i++)
        digest = dip_digest_text(digest, s->templates.lines.items[i]);
    return digest;
}

static dip_status load_idx(const void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind)
{
    const idx_pairs *s = state;
    uint8_t label = s->labels.data[index];
    if (label >= s->classes.n) {
        *kind = DIP_FAULT_LABEL;
        return dip_fail(DIP_FORMAT, "label %d, but there are %zu class names", label, s->classes.n);
    }
    pair->label = label;
    pair->extension = dip_format("png");
    if (!pair->extension) return dip_pairs_no_memory("image");
    DIP_TRY(dip_templates_fill(&pair->text, &pair->text_bytes, &s->templates,
                               s->classes.items[label], index));
    int height = (int)s->images.dims[1], width = (int)s->images.dims[2];
    const uint8_t *pixels = s->images.data + (size_t)index * (size_t)height * (size_t)width;
    return dip_png_encode(&pair->image, &pair->image_bytes, pixels, width, height, 1);
}

static dip_status open_idx(idx_pairs *s, const dip_idx_options *o)
{
    DIP_TRY(dip_idx_read(&s->images, o->images));
    DIP_TRY(dip_idx_read(&s->labels, o->labels));
    if (s->images.n_dims != 3 || s->images.dims[1] > 65535 || s->images.dims[2] > 65535)
        return dip_fail(DIP_FORMAT,
                        "%s: images need 3 dimensions (number, height, width, at most 65535 "
                        "pixels a side), it has %d",
                        o->images, s->images.n_dims);
    if (s->labels.n_dims != 1 || s->labels.dims[0] != s->images.dims[0])
        return dip_fail(
            DIP_FORMAT, "%s: %" PRId64 " labels in %d dimensions for the %" PRId64 " images of %s",
            o->labels, s->labels.dims[0], s->labels.n_dims, s->images.dims[0], o->images);
    DIP_TRY(dip_lines_read(&s->classes, o->class_names));
    return dip_templates_open(&s->templates, &o->templates, "a photo of a {c}.");
}

dip_status dip_pairs_open_idx(dip_pairs **out, const dip_idx_options *options)
{
    *out = NULL;
    idx_pairs *s = calloc(1, sizeof *s);
    if (!s) return dip_pairs_no_memory(options->images);
    dip_status status = open_idx(s, options);
    if (status != DIP_OK) {
        close_idx(s);
        return status;
    }
    return dip_pairs_make(out, &(dip_pairs){.n = s->images.dims[0],
                                            .state = s,
                                            .name = idx_name,
                                            .load = load_idx,
                                            .digest = digest_idx,
                                            .close = close_idx});
}
