/* The little of JSON that a task needs. The host's args are valid JSON, so nothing is checked twice. Each `text` may be
   NULL, for a value that is not there. */
#ifndef JSON_H
#define JSON_H

#include <stdio.h>

/* Where the value of a key begins in the object that `text` begins with; NULL if there is none. */
const char *json_member(const char *text, const char *key);

/* Where the first value begins in the array that `text` begins with; NULL if it is empty or no array. */
const char *json_first(const char *text);

/* The string that `text` begins with, in UTF-8, to be freed; NULL if it begins with something else. */
char *json_string(const char *text);

/* Writes a string with its quotes. */
void json_write_string(FILE *file, const char *string);

#endif
