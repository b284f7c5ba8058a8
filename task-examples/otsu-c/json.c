#include "json.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t\r\n");
}

static const char *skip_string(const char *text)
{
    for (text++; *text != '"' && *text != '\0'; text++)
        if (*text == '\\')
            text++;
    return *text == '"' ? text + 1 : text;
}

static const char *skip_value(const char *text)
{
    int depth = 0;
    do {
        if (*text == '"') {
            text = skip_string(text);
            continue;
        }
        if (*text == '{' || *text == '[')
            depth++;
        else if (*text == '}' || *text == ']')
            depth--;
        text++;
    } while (*text != '\0' && (depth > 0 || !strchr(",}] \t\r\n", *text)));
    return text;
}

const char *json_member(const char *text, const char *key)
{
    if (text == NULL || *(text = skip_blanks(text)) != '{')
        return NULL;
    text = skip_blanks(text + 1);
    while (*text == '"') {
        char *name = json_string(text);
        bool found = name != NULL && strcmp(name, key) == 0;
        free(name);
        text = skip_blanks(skip_string(text));
        text = skip_blanks(text + 1);
        if (found)
            return text;
        text = skip_blanks(skip_value(text));
        text = skip_blanks(text + 1);
    }
    return NULL;
}

const char *json_first(const char *text)
{
    if (text == NULL || *text != '[')
        return NULL;
    text = skip_blanks(text + 1);
    return *text == ']' ? NULL : text;
}

static unsigned long read_hex(const char *text)
{
    char digits[5] = "";
    memcpy(digits, text, 4);
    return strtoul(digits, NULL, 16);
}

static char *write_utf8(char *end, unsigned long code)
{
    if (code < 0x80) {
        *end++ = (char)code;
        return end;
    }
    int n_more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char first[] = {0, 0xc0, 0xe0, 0xf0};
    *end++ = (char)(first[n_more] | code >> 6 * n_more);
    while (n_more-- > 0)
        *end++ = (char)(0x80 | (code >> 6 * n_more & 0x3f));
    return end;
}

char *json_string(const char *text)
{
    if (text == NULL || *text != '"')
        return NULL;
    char *string = malloc(strlen(text));
    char *end = string;
    for (text++; *text != '"'; text++) {
        static const char escapes[] = "b\bf\fn\nr\rt\t";
        if (*text != '\\') {
            *end++ = *text;
        } else if (*++text == 'u') {
            unsigned long code = read_hex(text + 1);
            text += 4;
            if (code >= 0xd800 && code < 0xdc00) {
                code = 0x10000 + ((code - 0xd800) << 10) + (read_hex(text + 3) - 0xdc00);
                text += 6;
            }
            end = write_utf8(end, code);
        } else {
            const char *escape = strchr(escapes, *text);
            *end++ = escape ? escape[1] : *text;
        }
    }
    *end = '\0';
    return string;
}

void json_write_string(FILE *file, const char *string)
{
    fputc('"', file);
    for (; *string != '\0'; string++) {
        unsigned char byte = (unsigned char)*string;
        if (byte == '"' || byte == '\\')
            fprintf(file, "\\%c", byte);
        else if (byte < 0x20)
            fprintf(file, "\\u%04x", byte);
        else
            fputc(byte, file);
    }
    fputc('"', file);
}
