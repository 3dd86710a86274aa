/* JSON out. cJSON's own printer rounds: 9007199254740991 becomes 9.00719925474099e+15, and the
 * last bit of a double may go. What is saved must read back as the same number. */
#include "core/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/number.h"

static void print_string(FILE *out, const char *text)
{
    static const char specials[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    fputc('"', out);
    for (; *text; text++) {
        const char *special = strchr(specials, *text);
        if (special)
            fprintf(out, "\\%c", letters[special - specials]);
        else if ((unsigned char)*text < 0x20)
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}

static void print_number(FILE *out, double value)
{
    char text[DIP_NUMBER_TEXT_BYTES];
    if (value == floor(value) && fabs(value) < 9007199254740992.0 &&
        !(value == 0 && signbit(value)))
        snprintf(text, sizeof text, "%.0f", value);
    else
        dip_number_write_double(text, value);
    fputs(text, out);
}

static void break_line(FILE *out, int depth)
{
    if (depth >= 0) fprintf(out, "\n%*s", 2 * depth, "");
}

/* depth < 0: all on one line. */
static void print_value(FILE *out, const cJSON *value, int depth)
{
    if (cJSON_IsNumber(value)) {
        print_number(out, value->valuedouble);
    } else if (cJSON_IsString(value)) {
        print_string(out, value->valuestring);
    } else if (cJSON_IsBool(value)) {
        fputs(cJSON_IsTrue(value) ? "true" : "false", out);
    } else if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
        int inner = depth < 0 ? depth : depth + 1;
        fputc(cJSON_IsArray(value) ? '[' : '{', out);
        for (const cJSON *child = value->child; child; child = child->next) {
            break_line(out, inner);
            if (cJSON_IsObject(value)) {
                print_string(out, child->string);
                fputs(depth < 0 ? ":" : ": ", out);
            }
            print_value(out, child, inner);
            if (child->next) fputc(',', out);
        }
        if (value->child) break_line(out, depth);
        fputc(cJSON_IsArray(value) ? ']' : '}', out);
    } else {
        fputs("null", out);
    }
}

static const cJSON *find_not_finite(const cJSON *value)
{
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble)) return value;
    for (const cJSON *child = value->child; child; child = child->next) {
        const cJSON *found = find_not_finite(child);
        if (found) return found;
    }
    return NULL;
}

dip_status dip_json_print(char **out, const cJSON *value, bool pretty)
{
    *out = NULL;
    const cJSON *bad = find_not_finite(value);
    if (bad)
        return dip_fail(DIP_NUMERIC, "\"%s\" is not a finite number, which JSON cannot hold",
                        bad->string ? bad->string : "(a list item)");
    size_t n = 0;
    FILE *stream = open_memstream(out, &n);
    if (!stream) return dip_fail(DIP_NOMEM, "no memory to print JSON");
    print_value(stream, value, pretty ? 0 : -1);
    bool incomplete = ferror(stream) != 0;
    if (fclose(stream) != 0 || incomplete) {
        free(*out);
        *out = NULL;
        return dip_fail(DIP_NOMEM, "no memory to print JSON");
    }
    return DIP_OK;
}

dip_status dip_json_write(const char *path, const cJSON *value)
{
    char *text;
    dip_status status = dip_json_print(&text, value, true);
    if (status != DIP_OK) return dip_fail_prefix(status, "cannot write %s: ", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL, which nobody needs any more */
    status = dip_file_write(path, text, n + 1);
    free(text);
    return status;
}
