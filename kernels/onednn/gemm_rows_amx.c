/* out = epilogue(A B) over all rows: forward and backward_input.
 *
 * B (weights) is packed once a call. Work is cut into items of a few row blocks by a panel of
 * columns that fits the second-level cache. Within an item a row block of A, two if K is short,
 * stays in the first-level cache while the panel of B streams by. The epilogue of a block runs
 * while the next one is multiplied.
 *
 * Workspace: [packed B][bias as float][per thread: a C block, rows of A blocks] */
#include "kernels/onednn/gemm_blocks.h"

#include <immintrin.h>
#include <omp.h>
#include <string.h>

enum {
    PANEL_BYTES = 5 << 18,   /* of packed B that one pass over the rows uses */
    GROUP_BYTES = 24 << 10,  /* of A that go together when K is short */
    MAX_GROUP = 2,           /* row blocks */
    MAX_ITEM_BLOCKS = 4,     /* row blocks a thread takes at a time, */
    MIN_ITEMS_PER_THREAD = 8 /* less if there are few */
};

typedef struct layout {
    int64_t n_blocks, n_steps;      /* along N and K */
    int64_t n_panels, panel_blocks; /* along N */
    int64_t group;                  /* row blocks that go together */
    size_t b_bytes, bias_bytes, a_bytes, c_bytes, thread_bytes;
} layout;

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static layout layout_of(int n_planes, int64_t n, int64_t k)
{
    layout l = {.n_blocks = dip_gemm_n_blocks(n), .n_steps = dip_gemm_n_blocks(k)};
    l.a_bytes = (size_t)l.n_steps * (size_t)n_planes * GEMM_BLOCK_BYTES;
    l.b_bytes = (size_t)l.n_blocks * l.a_bytes;
    l.bias_bytes = dip_gemm_round_up((size_t)l.n_blocks * GEMM_BLOCK * sizeof(float));

    l.n_panels = divide_up((int64_t)l.b_bytes, PANEL_BYTES);
    if (l.n_panels < 1) l.n_panels = 1;
    l.panel_blocks = divide_up(l.n_blocks, l.n_panels);
    if (l.panel_blocks > 0) l.n_panels = divide_up(l.n_blocks, l.panel_blocks);

    l.group = l.a_bytes > 0 ? GROUP_BYTES / (int64_t)l.a_bytes : 1;
    if (l.group < 1) l.group = 1;
    if (l.group > MAX_GROUP) l.group = MAX_GROUP;

    l.c_bytes = GEMM_BLOCK * GEMM_BLOCK * sizeof(float);
    /* Not less for smaller shapes: a workspace serves all shapes up to the one asked for. */
    l.thread_bytes = l.c_bytes + (l.a_bytes > GROUP_BYTES ? l.a_bytes : GROUP_BYTES);
    return l;
}

size_t dip_gemm_rows_bytes(int n_planes, int64_t n, int64_t k, int n_threads)
{
    layout l = layout_of(n_planes, n, k);
    return l.b_bytes + l.bias_bytes + (size_t)n_threads * l.thread_bytes;
}

static size_t element_bytes(const dip_gemm_method *method)
{
    return dip_dtype_bytes(method->dtype);
}

static int at_most_block(int64_t n)
{
    return n < GEMM_BLOCK ? (int)n : GEMM_BLOCK;
}

static void pack_b_block(const dip_gemm_method *method, const dip_gemm_rows_job *job,
                         const layout *l, uint8_t *packed, int64_t block)
{
    int64_t n0 = block * GEMM_BLOCK;
    int n_cols = at_most_block(job->n - n0);
    for (int64_t step = 0; step < l->n_steps; step++) {
        int64_t k0 = step * GEMM_BLOCK;
        int depth = at_most_block(job->k - k0);
        uint8_t *dst = packed + (size_t)(block * l->n_steps + step) * (size_t)method->n_planes *
                                    GEMM_BLOCK_BYTES;
        const uint8_t *b = job->b;
        if (job->b_transposed)
            method->pack(dst, NULL, b + (size_t)(n0 * job->k + k0) * element_bytes(method), job->k,
                         n_cols, depth, GEMM_B_COLUMNS);
        else
            method->pack(dst, NULL, b + (size_t)(k0 * job->n + n0) * element_bytes(method), job->n,
                         depth, n_cols, GEMM_B_ROWS);
    }
}

static void widen_bias(float *out, const dip_gemm_method *method, const dip_gemm_rows_job *job,
                       const layout *l)
{
    memset(out, 0, l->bias_bytes);
    if (job->bias == NULL) return;
    if (method->dtype == DIP_F32) {
        memcpy(out, job->bias, (size_t)job->n * sizeof *out);
    } else {
        const dip_bf16 *bias = job->bias;
        for (int64_t i = 0; i < job->n; i++) out[i] = dip_bf16_to_float(bias[i]);
    }
}

/* One row of A blocks. bf16 rows of a full block are read where they are. */
static dip_gemm_panel a_panel(const dip_gemm_method *method, const dip_gemm_rows_job *job,
                              const layout *l, uint8_t *packed, int64_t row)
{
    size_t row_bytes = (size_t)job->k * element_bytes(method);
    const uint8_t *a = (const uint8_t *)job->a + (size_t)row * row_bytes;
    int n_rows = at_most_block(job->m - row);
    if (method->dtype == DIP_BF16 && job->k % GEMM_BLOCK == 0 && n_rows == GEMM_BLOCK)
        return (dip_gemm_panel){a, row_bytes, 16 * row_bytes, 64};
    size_t step_bytes = (size_t)method->n_planes * GEMM_BLOCK_BYTES;
    for (int64_t step = 0; step < l->n_steps; step++)
        method->pack(packed + (size_t)step * step_bytes, NULL,
                     a + (size_t)(step * GEMM_BLOCK) * element_bytes(method), job->k, n_rows,
                     at_most_block(job->k - step * GEMM_BLOCK), GEMM_A_ROWS);
    return (dip_gemm_panel){packed, 64, GEMM_TILE_BYTES, step_bytes};
}

/* Ask for part `index` of `n_parts` of the n_blocks row blocks from `row` on. */
static void prefetch_rows(const dip_gemm_method *method, const dip_gemm_rows_job *job, int64_t row,
                          int64_t n_blocks, int64_t index, int64_t n_parts)
{
    size_t row_bytes = (size_t)job->k * element_bytes(method);
    int64_t n_rows = n_blocks * GEMM_BLOCK;
    if (n_rows > job->m - row) n_rows = job->m - row;
    size_t n_bytes = (size_t)n_rows * row_bytes;
    size_t part = (n_bytes / (size_t)n_parts + 63) & ~(size_t)63;
    const char *a = (const char *)job->a + (size_t)row * row_bytes;
    size_t begin = (size_t)index * part, end = begin + part < n_bytes ? begin + part : n_bytes;
    for (size_t at = begin; at < end; at += 64) _mm_prefetch(a + at, _MM_HINT_T1);
}

typedef struct range {
    int64_t begin, end; /* blocks */
} range;

typedef struct item_context {
    const dip_gemm_method *method;
    const dip_gemm_rows_job *job;
    const layout *l;
    const dip_gemm_epilogue *epilogue;
    const uint8_t *packed_b;
    float *c;          /* this thread's */
    uint8_t *packed_a; /* this thread's */
} item_context;

static void multiply_item(const item_context *x, range rows, range cols)
{
    const layout *l = x->l;
    dip_gemm_pending pending = {.epilogue = x->epilogue};
    for (int64_t first = rows.begin; first < rows.end; first += l->group) {
        int64_t n_group = rows.end - first < l->group ? rows.end - first : l->group;
        int64_t next_row = (first + n_group) * GEMM_BLOCK;
        dip_gemm_panel a[MAX_GROUP];
        for (int64_t i = 0; i < n_group; i++)
            a[i] = a_panel(x->method, x->job, l, x->packed_a + (size_t)i * l->a_bytes,
                           (first + i) * GEMM_BLOCK);
        for (int64_t j = cols.begin; j < cols.end; j++) {
            if (next_row < x->job->m)
                prefetch_rows(x->method, x->job, next_row, n_group, j - cols.begin,
                              cols.end - cols.begin);
            for (int64_t i = 0; i < n_group; i++) {
                x->method->kernel(x->c, GEMM_BLOCK, false, &a[i],
                                  x->packed_b + (size_t)j * l->a_bytes, l->n_steps, &pending);
                pending = (dip_gemm_pending){
                    .epilogue = x->epilogue,
                    .c = x->c,
                    .row = (first + i) * GEMM_BLOCK,
                    .col = j * GEMM_BLOCK,
                    .n_rows = at_most_block(x->job->m - (first + i) * GEMM_BLOCK),
                    .n_cols = at_most_block(x->job->n - j * GEMM_BLOCK),
                };
            }
        }
    }
    dip_gemm_pending_run(&pending, GEMM_BLOCK);
}

void dip_gemm_rows(const dip_gemm_method *method, const dip_gemm_rows_job *job)
{
    const layout l = layout_of(method->n_planes, job->n, job->k);
    uint8_t *packed_b = job->workspace;
    float *bias = (float *)(void *)(packed_b + l.b_bytes);
    uint8_t *threads = packed_b + l.b_bytes + l.bias_bytes;
    const dip_gemm_epilogue epilogue = {
        .run = dip_gemm_epilogue_for(method->dtype, job->act, job->gradient),
        .out = job->out,
        .pre = job->pre,
        .residual = job->residual,
        .act_pre = job->act_pre,
        .bias = bias,
        .ld = job->n,
    };
    int64_t m_blocks = dip_gemm_n_blocks(job->m);
    int64_t item_blocks = l.n_panels * m_blocks / (MIN_ITEMS_PER_THREAD * job->n_threads);
    if (item_blocks < 1) item_blocks = 1;
    if (item_blocks > MAX_ITEM_BLOCKS) item_blocks = MAX_ITEM_BLOCKS;
    int64_t items_per_panel = divide_up(m_blocks, item_blocks);

    widen_bias(bias, method, job, &l);
#pragma omp parallel num_threads(job->n_threads)
    {
        uint8_t *scratch = threads + (size_t)omp_get_thread_num() * l.thread_bytes;
        const item_context context = {
            .method = method,
            .job = job,
            .l = &l,
            .epilogue = &epilogue,
            .packed_b = packed_b,
            .c = (float *)(void *)scratch,
            .packed_a = scratch + l.c_bytes,
        };
#pragma omp for schedule(static)
        for (int64_t block = 0; block < l.n_blocks; block++)
            pack_b_block(method, job, &l, packed_b, block);
        if (method->thread_begin != NULL) method->thread_begin();
#pragma omp for schedule(dynamic) nowait
        for (int64_t item = 0; item < l.n_panels * items_per_panel; item++) {
            range rows = {item % items_per_panel * item_blocks, 0};
            range cols = {item / items_per_panel * l.panel_blocks, 0};
            rows.end = rows.begin + item_blocks < m_blocks ? rows.begin + item_blocks : m_blocks;
            cols.end =
                cols.begin + l.panel_blocks < l.n_blocks ? cols.begin + l.panel_blocks : l.n_blocks;
            multiply_item(&context, rows, cols);
        }
        if (method->thread_end != NULL) method->thread_end();
    }
}
