/* A SentencePiece model is one protobuf message. Only this much of it matters here:
 *   ModelProto      1 pieces (repeated), 2 trainer_spec, 3 normalizer_spec, 5 denormalizer_spec
 *   SentencePiece   1 piece, 2 score (float), 3 type
 *   TrainerSpec     3 model_type, 4 vocab_size, 42 eos_id
 *   NormalizerSpec  2 precompiled_charsmap                                                      */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "text/spm.h"

enum {
    MAX_PIECES = 1 << 20,
    MAX_PIECE_BYTES = 1024,      /* the library's trie builder recurses once a byte */
    MAX_REPLACEMENT_BYTES = 256, /* what one normalized character may grow to */
    MAX_SPAN_BYTES = 1 << 30
};

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3, MODEL_DENORMALIZER = 5 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_VOCAB_SIZE = 4, TRAINER_EOS_ID = 42 };
enum { NORMALIZER_CHARSMAP = 2 };

typedef struct message {
    const uint8_t *at, *end;
} message;

typedef struct field {
    uint32_t number;
    int wire;
    uint64_t value;       /* VARINT, FIXED32, FIXED64 */
    const uint8_t *bytes; /* BYTES */
    size_t n_bytes;
    const uint8_t *start, *end; /* the field with its tag */
} field;

static bool read_varint(message *in, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (in->at == in->end) return false;
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool read_fixed(message *in, uint64_t *value, size_t n_bytes)
{
    if ((size_t)(in->end - in->at) < n_bytes) return false;
    *value = 0;
    for (size_t i = 0; i < n_bytes; i++) *value |= (uint64_t)in->at[i] << (8 * i);
    in->at += n_bytes;
    return true;
}

/* The next field: 1, 0 at the end, -1 when the bytes are no protobuf. */
static int next_field(message *in, field *out)
{
    if (in->at == in->end) return 0;
    memset(out, 0, sizeof *out);
    out->start = in->at;
    uint64_t tag;
    if (!read_varint(in, &tag) || tag >> 3 == 0 || tag >> 32 != 0) return -1;
    out->number = (uint32_t)(tag >> 3);
    out->wire = (int)(tag & 7);
    switch (out->wire) {
    case WIRE_VARINT:
        if (!read_varint(in, &out->value)) return -1;
        break;
    case WIRE_FIXED64:
        if (!read_fixed(in, &out->value, 8)) return -1;
        break;
    case WIRE_FIXED32:
        if (!read_fixed(in, &out->value, 4)) return -1;
        break;
    case WIRE_BYTES: {
        uint64_t n_bytes;
        if (!read_varint(in, &n_bytes) || n_bytes > (uint64_t)(in->end - in->at)) return -1;
        out->bytes = in->at;
        out->n_bytes = (size_t)n_bytes;
        in->at += n_bytes;
        break;
    }
    default:
        return -1;
    }
    out->end = in->at;
    return 1;
}

static message inside(const field *outer)
{
    return (message){outer->bytes, outer->bytes + outer->n_bytes};
}

static dip_status check_piece(const field *outer, int id, const char *name)
{
    message in = inside(outer);
    field f;
    int got;
    while ((got = next_field(&in, &f)) == 1) {
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES && f.n_bytes > MAX_PIECE_BYTES)
            return dip_fail(DIP_FORMAT, "%s: piece %d is %zu bytes long; the limit is %d bytes",
                            name, id, f.n_bytes, MAX_PIECE_BYTES);
        if (f.number == PIECE_SCORE && f.wire == WIRE_FIXED32) {
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            if (!isfinite(score))
                return dip_fail(DIP_FORMAT, "%s: the score of piece %d is not finite", name, id);
        }
        if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT && (f.value < 1 || f.value > 6))
            return dip_fail(DIP_FORMAT, "%s: piece %d has the unknown type %llu", name, id,
                            (unsigned long long)f.value);
    }
    if (got < 0) return dip_fail(DIP_FORMAT, "%s: piece %d is damaged", name, id);
    return DIP_OK;
}

static dip_status check_trainer(dip_spm_facts *facts, const field *outer, const char *name)
{
    static const char *const types[] = {NULL, "unigram", "bpe", "word", "char"};
    message in = inside(outer);
    field f;
    int got;
    while ((got = next_field(&in, &f)) == 1) {
        if (f.number != TRAINER_MODEL_TYPE || f.wire != WIRE_VARINT) continue;
        if (f.value < 1 || f.value > 4)
            return dip_fail(DIP_FORMAT, "%s: unknown model type %llu", name,
                            (unsigned long long)f.value);
        if (f.value > 2)
            return dip_fail(DIP_UNSUPPORTED, "%s is a %s model; this program reads unigram and bpe",
                            name, types[f.value]);
        facts->model_type = types[f.value];
    }
    if (got < 0) return dip_fail(DIP_FORMAT, "%s: the trainer settings are damaged", name);
    return DIP_OK;
}

static uint32_t little_u32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The trie is a double array of 32-bit units. Unit u at position p leads, on byte c, to position
 * p ^ offset(u) ^ c; the library walks it without looking where it steps, so every position that
 * can be reached from the root is looked at here. Leaves hold offsets into `texts`, whose last byte
 * is NUL. */
static bool trie_is_sound(const uint8_t *trie, size_t n_units, const uint8_t *texts,
                          size_t n_text_bytes)
{
    uint8_t *seen = calloc(n_units, 1);
    uint32_t *stack = malloc(n_units * sizeof *stack);
    bool sound = seen && stack && n_units > 0;
    size_t depth = 0;
    if (sound) {
        seen[0] = 1;
        stack[depth++] = 0;
    }
    while (sound && depth > 0) {
        uint32_t position = stack[--depth];
        uint32_t unit = little_u32(trie + 4 * (size_t)position);
        uint32_t base = position ^ ((unit >> 10) << ((unit & 0x200u) >> 6));
        if ((base | 0xffu) >= n_units) {
            sound = false;
            break;
        }
        if (unit & 0x100u) { /* a leaf sits at byte 0 */
            size_t at = little_u32(trie + 4 * (size_t)base) & 0x7fffffffu;
            sound = at < n_text_bytes &&
                    strnlen((const char *)texts + at, n_text_bytes - at) <= MAX_REPLACEMENT_BYTES;
        }
        for (uint32_t c = 0; c < 256; c++) {
            uint32_t child = base ^ c;
            uint32_t label = little_u32(trie + 4 * (size_t)child) & 0x800000ffu;
            if (label != c || seen[child]) continue;
            seen[child] = 1;
            stack[depth++] = child;
        }
    }
    free(seen);
    free(stack);
    return sound;
}

static dip_status check_normalizer(const field *outer, const char *name)
{
    message in = inside(outer);
    field f;
    int got;
    while ((got = next_field(&in, &f)) == 1) {
        if (f.number != NORMALIZER_CHARSMAP || f.wire != WIRE_BYTES || f.n_bytes == 0) continue;
        /* u32 size of the trie, the trie, then texts that end with NUL each */
        size_t trie_bytes = f.n_bytes > 4 ? little_u32(f.bytes) : 0;
        if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= f.n_bytes - 4 ||
            f.bytes[f.n_bytes - 1] != 0 ||
            !trie_is_sound(f.bytes + 4, trie_bytes / 4, f.bytes + 4 + trie_bytes,
                           f.n_bytes - 4 - trie_bytes))
            return dip_fail(DIP_FORMAT, "%s: the normalizer's character table is damaged", name);
    }
    if (got < 0) return dip_fail(DIP_FORMAT, "%s: the normalizer settings are damaged", name);
    return DIP_OK;
}

static dip_status check_looks(const uint8_t *model, size_t n_bytes, const char *name)
{
    static const struct {
        const char *start, *what;
    } strangers[] = {
        {"version https://git-lfs", "a Git LFS pointer: the file itself was never fetched"},
        {"<", "an HTML or XML page"},
        {"{", "JSON"},
        {"#version", "a merges.txt of another kind of tokenizer"},
        {"PK", "a zip archive"},
        {"\x1f\x8b", "compressed with gzip"},
    };
    if (n_bytes == 0) return dip_fail(DIP_FORMAT, "%s is empty", name);
    if (n_bytes > MAX_SPAN_BYTES)
        return dip_fail(DIP_FORMAT, "%s has %zu bytes; the limit is %d", name, n_bytes,
                        MAX_SPAN_BYTES);
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        size_t n = strlen(strangers[i].start);
        if (n_bytes >= n && memcmp(model, strangers[i].start, n) == 0)
            return dip_fail(DIP_FORMAT, "%s is not a SentencePiece model: it is %s", name,
                            strangers[i].what);
    }
    return DIP_OK;
}

dip_status dip_spm_check(dip_spm_facts *facts, const void *model, size_t n_bytes, const char *name)
{
    *facts = (dip_spm_facts){0, "unigram"}; /* the format's default */
    DIP_TRY(check_looks(model, n_bytes, name));
    message in = {model, (const uint8_t *)model + n_bytes};
    field f;
    int got;
    while ((got = next_field(&in, &f)) == 1) {
        if (f.wire != WIRE_BYTES) continue;
        switch (f.number) {
        case MODEL_PIECES:
            if (facts->n_pieces == MAX_PIECES)
                return dip_fail(DIP_FORMAT, "%s has more than %d pieces", name, MAX_PIECES);
            DIP_TRY(check_piece(&f, facts->n_pieces++, name));
            break;
        case MODEL_TRAINER:
            DIP_TRY(check_trainer(facts, &f, name));
            break;
        case MODEL_NORMALIZER:
        case MODEL_DENORMALIZER:
            DIP_TRY(check_normalizer(&f, name));
            break;
        default:
            break;
        }
    }
    if (got < 0)
        return dip_fail(DIP_FORMAT,
                        "%s is not a SentencePiece model, or is cut short: damage at byte %zu of "
                        "%zu, after %d pieces",
                        name, (size_t)(f.start - (const uint8_t *)model), n_bytes, facts->n_pieces);
    if (facts->n_pieces == 0)
        return dip_fail(DIP_FORMAT, "%s is not a SentencePiece model: it has no pieces", name);
    return DIP_OK;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

typedef struct output {
    uint8_t *at; /* the caller made room */
} output;

static void put(output *out, const void *bytes, size_t n_bytes)
{
    if (n_bytes == 0) return;
    memcpy(out->at, bytes, n_bytes);
    out->at += n_bytes;
}

static void put_varint(output *out, uint64_t value)
{
    while (value >= 0x80) {
        *out->at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out->at++ = (uint8_t)value;
}

static void put_number(output *out, uint32_t number, uint64_t value)
{
    put_varint(out, (uint64_t)number << 3 | WIRE_VARINT);
    put_varint(out, value);
}

/* The trainer settings with the new size and eos, at most 32 bytes longer. `scratch` holds
 * outer->n_bytes + 32 bytes. */
static void put_trainer(output *out, const field *outer, uint8_t *scratch, int n_pieces)
{
    output body = {scratch};
    message in = inside(outer);
    field f;
    while (next_field(&in, &f) == 1) {
        if (f.number == TRAINER_VOCAB_SIZE || f.number == TRAINER_EOS_ID) continue;
        put(&body, f.start, (size_t)(f.end - f.start));
    }
    put_number(&body, TRAINER_VOCAB_SIZE, (uint64_t)n_pieces);
    put_number(&body, TRAINER_EOS_ID, (uint64_t)(n_pieces - 1));
    size_t n_bytes = (size_t)(body.at - scratch);
    put_varint(out, (uint64_t)MODEL_TRAINER << 3 | WIRE_BYTES);
    put_varint(out, n_bytes);
    put(out, scratch, n_bytes);
}

dip_status dip_spm_move_last(uint8_t **out, size_t *n_out, const void *model, size_t n_bytes,
                             int eos)
{
    *out = NULL;
    dip_spm_facts facts;
    DIP_TRY(dip_spm_check(&facts, model, n_bytes, "the trained model"));
    uint8_t *fresh = malloc(n_bytes + 64);
    uint8_t *scratch = malloc(n_bytes + 64);
    if (!fresh || !scratch) {
        free(fresh);
        free(scratch);
        return dip_fail(DIP_NOMEM, "no memory for a tokenizer of %zu bytes", n_bytes);
    }
    output body = {fresh};
    field last = {0}, f;
    int id = 0;
    /* Pieces first and in order, then everything else: two readings of the same fields. */
    message in = {model, (const uint8_t *)model + n_bytes};
    while (next_field(&in, &f) == 1) {
        if (f.number != MODEL_PIECES) continue;
        if (id++ == eos)
            last = f;
        else
            put(&body, f.start, (size_t)(f.end - f.start));
    }
    if (last.start) put(&body, last.start, (size_t)(last.end - last.start));
    in = (message){model, (const uint8_t *)model + n_bytes};
    while (next_field(&in, &f) == 1) {
        if (f.number == MODEL_TRAINER)
            put_trainer(&body, &f, scratch, facts.n_pieces);
        else if (f.number != MODEL_PIECES)
            put(&body, f.start, (size_t)(f.end - f.start));
    }
    free(scratch);
    *out = fresh;
    *n_out = (size_t)(body.at - fresh);
    return DIP_OK;
}
