#include "tools/contact_sheet.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "data/samples.h"

enum {
    MAX_LINES = 5,        /* captions shown of one sample */
    MAX_CHARACTERS = 400, /* of one caption */
    MAX_FIGURES = 12      /* of one object in the report */
};

/* Pictures come first in time and last on the page: they wait in memory. */
struct dip_contact_sheet {
    dip_writer *writer;
    FILE *cards;
    char *cards_text;
    size_t cards_bytes;
    int64_t n_cards;
};

static const char *const head =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n"
    "<head>\n"
    "<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<style>\n"
    ":root { color-scheme: light dark; --wrong: #b3001b; }\n"
    "@media (prefers-color-scheme: dark) { :root { --wrong: #ff8a80; } }\n"
    "body { font: 1rem/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto;\n"
    "       padding: 1rem; overflow-wrap: anywhere; }\n"
    "h1 { font-size: 1.3rem; }\n"
    "h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }\n"
    "dl, ul { display: grid; gap: .8rem; padding: 0; margin: 0;\n"
    "         grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }\n"
    "dt, .facts { font-size: .8rem; opacity: .7; }\n"
    "dd, .ledger p { margin: 0; }\n"
    "ul { list-style: none; }\n"
    "li { border: 1px solid #8886; border-radius: .4rem; padding: .6rem; }\n"
    "li.bad { border-color: var(--wrong); }\n"
    "li > p { margin: .4rem 0 0; max-height: 12em; overflow: auto; }\n"
    ".picture { min-height: 8rem; display: grid; place-items: center; }\n"
    "img { display: block; max-width: 100%; height: auto; }\n"
    ".fault { color: var(--wrong); }\n"
    "</style>\n";

static const char *const tail = "</ul>\n</body>\n</html>\n";

/* ---- text ------------------------------------------------------------------------------ */

/* Characters that mean something in HTML, or something to a terminal or a page's layout. */
static void put_character(FILE *out, const unsigned char *p, size_t n)
{
    bool is_control = n == 1 ? *p < 0x20 || *p == 0x7f : n == 2 && *p == 0xc2 && p[1] < 0xa0;
    if (n == 0 || is_control)
        for (size_t i = 0; i < (n ? n : 1); i++) fprintf(out, "\\x%02x", p[i]);
    else if (*p == '&' || *p == '<' || *p == '>' || *p == '"' || *p == '\'')
        fprintf(out, "&#%d;", *p);
    else
        fwrite(p, 1, n, out);
}

static void put_text(FILE *out, const char *text, size_t n_bytes)
{
    size_t at = 0;
    for (int i = 0; at < n_bytes && i < MAX_CHARACTERS; i++) {
        size_t n = dip_utf8_length(text + at, n_bytes - at); /* 0: no character */
        put_character(out, (const unsigned char *)text + at, n);
        at += n ? n : 1;
    }
    if (at < n_bytes) fputs(" \xe2\x80\xa6", out);
}

static void put_string(FILE *out, const char *text)
{
    put_text(out, text, strlen(text));
}

static void put_base64(FILE *out, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t x = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                     (left > 2 ? data[i + 2] : 0);
        fputc(digits[x >> 18], out);
        fputc(digits[x >> 12 & 63], out);
        fputc(left > 1 ? digits[x >> 6 & 63] : '=', out);
        fputc(left > 2 ? digits[x & 63] : '=', out);
    }
}

/* ---- a sample -------------------------------------------------------------------------- */

typedef struct lines {
    FILE *out;
    int n;
} lines;

static int put_line(void *context, const char *line, size_t n)
{
    lines *l = context;
    if (l->n++ >= MAX_LINES) return 0;
    fputs("<p dir=\"auto\">", l->out);
    put_text(l->out, line, n);
    fputs("</p>\n", l->out);
    return 0;
}

/* A label can stand in for a caption. */
static bool lacks_caption(const dip_contact *contact)
{
    return !contact->caption && contact->label < 0;
}

static void put_captions(FILE *out, const dip_contact *contact, int n_lines)
{
    lines l = {out, 0};
    if (lacks_caption(contact)) fputs("<p class=\"fault\">no caption</p>\n", out);
    if (!contact->caption) return;
    dip_caption_lines(contact->caption, contact->caption_bytes, put_line, &l);
    if (n_lines > MAX_LINES) fprintf(out, "<p class=\"facts\">%d more</p>\n", n_lines - MAX_LINES);
    if (n_lines == 0) fputs("<p class=\"fault\">empty caption</p>\n", out);
    if (n_lines >= 0) return;
    fputs("<p class=\"fault\">not UTF-8: ", out);
    put_text(out, contact->caption, contact->caption_bytes);
    fputs("</p>\n", out);
}

/* The picture, or in its place what is wrong with it. */
static void put_image(FILE *out, const dip_contact *contact)
{
    fputs("<div class=\"picture\">\n", out);
    if (contact->thumbnail) {
        fprintf(out, "<img width=\"%d\" height=\"%d\" alt=\"\" src=\"data:image/png;base64,",
                contact->thumbnail_width, contact->thumbnail_height);
        put_base64(out, contact->thumbnail, contact->thumbnail_bytes);
        fputs("\">\n", out);
    }
    if (contact->fault || !contact->format) {
        fputs("<p class=\"fault\">", out);
        put_string(out, contact->fault ? contact->fault : "no image");
        fputs("</p>\n", out);
    }
    fputs("</div>\n", out);
}

static void put_facts(FILE *out, const dip_contact *contact)
{
    const char *slash = strrchr(contact->shard, '/');
    fputs("<p class=\"facts\"><bdi>", out);
    put_string(out, contact->key);
    fputs("</bdi><br><bdi>", out);
    put_string(out, slash ? slash + 1 : contact->shard);
    fputs("</bdi>", out);
    if (contact->format) fprintf(out, "<br>%s", contact->format);
    if (contact->width) fprintf(out, " %d &#215; %d", contact->width, contact->height);
    if (contact->format) fprintf(out, "<br>%.1f&#160;kB", (double)contact->image_bytes / 1000);
    if (contact->label >= 0) fprintf(out, "<br>label %lld", (long long)contact->label);
    fputs("</p>\n", out);
}

dip_status dip_contact_sheet_add(dip_contact_sheet *sheet, const dip_contact *contact)
{
    int n_lines = contact->caption
                      ? dip_caption_lines(contact->caption, contact->caption_bytes, NULL, NULL)
                      : 0;
    bool is_bad = contact->fault || !contact->format || lacks_caption(contact) ||
                  (contact->caption && n_lines <= 0);
    fputs(is_bad ? "<li class=\"bad\">\n" : "<li>\n", sheet->cards);
    put_image(sheet->cards, contact);
    put_captions(sheet->cards, contact, n_lines);
    put_facts(sheet->cards, contact);
    fputs("</li>\n", sheet->cards);
    sheet->n_cards++;
    return ferror(sheet->cards) ? dip_fail(DIP_NOMEM, "no memory for the pictures of a page")
                                : DIP_OK;
}

/* ---- the page -------------------------------------------------------------------------- */

static void put_number(FILE *out, double x)
{
    if (x == floor(x) && fabs(x) < 1e15)
        fprintf(out, "%lld", (long long)x);
    else
        fprintf(out, "%.1f", x);
}

/* What a figure is called on the page, if not as in the report. */
static void put_name(FILE *out, const char *name)
{
    static const char *const names[][2] = {
        {"n_indexed_shards", "shards with an index"},
        {"n_compared_members", "members compared"},
        {"n_captioned", "with a caption"},
        {"n_labelled", "with a label"},
        {"n_pairs", "good pairs"},
        {"dropped", "faults"},
        {"labels", "samples by label"},
        {"n_labels", "different labels"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i][0]) == 0) {
            fputs(names[i][1], out);
            return;
        }
    for (const char *p = strncmp(name, "n_", 2) == 0 ? name + 2 : name; *p; p++)
        fputc(*p == '_' ? ' ' : *p, out);
}

/* A number, or an object of numbers: "min 3, mean 5.5, max 9". */
static void put_figure(FILE *out, const cJSON *item)
{
    bool is_object = cJSON_IsObject(item);
    if (!cJSON_IsNumber(item) && !(is_object && item->child && cJSON_IsNumber(item->child))) return;
    if (is_object && cJSON_GetArraySize(item) > MAX_FIGURES) return;
    if (strcmp(item->string, "faults") == 0) return; /* the ledger says more */
    fputs("<div><dt>", out);
    put_name(out, item->string);
    fputs("</dt><dd>", out);
    if (!is_object) put_number(out, item->valuedouble);
    bool is_by_label = strcmp(item->string, "labels") == 0;
    for (const cJSON *part = item->child; is_object && part; part = part->next) {
        put_string(out, part->string);
        fputs(is_by_label ? ":&#160;" : "&#160;", out);
        put_number(out, part->valuedouble);
        if (part->next) fputs(", ", out);
    }
    fputs("</dd></div>\n", out);
}

/* The ledger's lines are indented by what they belong to; here too, where they wrap. */
static dip_status put_ledger(FILE *out, const dip_faults *faults)
{
    char *text = NULL;
    size_t n = 0;
    FILE *ledger = open_memstream(&text, &n);
    if (!ledger) return dip_fail(DIP_NOMEM, "no memory for the ledger on a page");
    dip_faults_print(faults, ledger);
    bool is_whole = fclose(ledger) == 0;
    if (is_whole && n > 0) fputs("<h2>What cannot be used</h2>\n<div class=\"ledger\">\n", out);
    for (char *line = text, *end; is_whole && line && *line; line = end) {
        size_t indent = strspn(line, " ");
        end = line + strcspn(line, "\n");
        fprintf(out, "<p style=\"margin-left: %zuch\">", indent);
        put_text(out, line + indent, (size_t)(end - line) - indent);
        fputs("</p>\n", out);
        if (*end) end++;
    }
    if (is_whole && n > 0) fputs("</div>\n", out);
    free(text);
    return is_whole ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for the ledger on a page");
}

/* All that comes before the samples. */
static dip_status put_page(FILE *out, const dip_contact_sheet *sheet, const char *title,
                           const cJSON *report, const dip_faults *faults)
{
    fputs(head, out);
    fputs("<title>", out);
    put_string(out, title);
    fputs("</title>\n</head>\n<body>\n<h1>", out);
    put_string(out, title);
    fputs("</h1>\n<dl>\n", out);
    for (const cJSON *item = report->child; item; item = item->next) put_figure(out, item);
    fputs("</dl>\n", out);
    DIP_TRY(put_ledger(out, faults));
    fprintf(out, "<h2>%lld", (long long)sheet->n_cards);
    double n_samples = cJSON_GetNumberValue(cJSON_GetObjectItem(report, "n_samples"));
    if (n_samples > (double)sheet->n_cards) fprintf(out, " of %.0f", n_samples);
    fputs(" samples</h2>\n"
          "<p class=\"facts\">Small copies of the pictures as training decodes them, without "
          "transparency.</p>\n<ul>\n",
          out);
    return DIP_OK;
}

static void free_sheet(dip_contact_sheet *sheet)
{
    if (sheet->cards) fclose(sheet->cards);
    free(sheet->cards_text);
    free(sheet);
}

dip_status dip_contact_sheet_open(dip_contact_sheet **out, const char *path)
{
    dip_status status;
    dip_contact_sheet *sheet = calloc(1, sizeof *sheet);
    *out = NULL;
    if (!sheet || !(sheet->cards = open_memstream(&sheet->cards_text, &sheet->cards_bytes))) {
        status = dip_fail(DIP_NOMEM, "no memory for the page %s", path);
        goto fail;
    }
    DIP_TRY_GOTO(dip_writer_open(&sheet->writer, path));
    *out = sheet;
    return DIP_OK;
fail:
    dip_contact_sheet_abort(sheet);
    return status;
}

void dip_contact_sheet_abort(dip_contact_sheet *sheet)
{
    if (!sheet) return;
    dip_writer_abort(sheet->writer);
    free_sheet(sheet);
}

dip_status dip_contact_sheet_close(dip_contact_sheet *sheet, const char *title, const cJSON *report,
                                   const dip_faults *faults)
{
    char *text = NULL;
    size_t n_bytes = 0;
    dip_status status;
    FILE *page = open_memstream(&text, &n_bytes);
    if (!page || fflush(sheet->cards) != 0) goto nomem;
    DIP_TRY_GOTO(put_page(page, sheet, title, report, faults));
    bool is_whole = !ferror(page) && fflush(page) == 0;
    if (!is_whole) goto nomem;
    DIP_TRY_GOTO(dip_writer_write(sheet->writer, text, n_bytes));
    DIP_TRY_GOTO(dip_writer_write(sheet->writer, sheet->cards_text, sheet->cards_bytes));
    DIP_TRY_GOTO(dip_writer_write(sheet->writer, tail, strlen(tail)));
    status = dip_writer_commit(sheet->writer);
    sheet->writer = NULL;
    goto fail;
nomem:
    status = dip_fail(DIP_NOMEM, "no memory for a page of %lld samples", (long long)sheet->n_cards);
fail:
    if (page) fclose(page);
    free(text);
    dip_contact_sheet_abort(sheet);
    return status;
}
