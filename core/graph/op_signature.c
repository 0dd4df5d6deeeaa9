/* Reading a row's strings: the names of its inputs and the kinds, slots and defaults of its attributes. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

/* The next word of *at, "" at the end; rows come from ops.def, so that what does not fit is a broken row. */
static bool next_word(const char **at, char *word, size_t size) {
  while (**at == ' ') (*at)++;
  size_t n = strcspn(*at, " ");
  SL_ASSERT(n < size);
  memcpy(word, *at, n);
  word[n] = 0;
  *at += n;
  return n > 0;
}

static void read_inputs(const char *at, sl_op_signature *s) {
  char word[24];
  while (next_word(&at, word, sizeof word)) {
    size_t n = strlen(word);
    bool many = word[n - 1] == '*', optional = word[n - 1] == '?';
    if (many || optional) word[--n] = 0;
    SL_ASSERT(s->n_inputs < SL_MAX_INPUTS && n < sizeof s->input[0]);
    s->optional[s->n_inputs] = optional;
    memcpy(s->input[s->n_inputs++], word, n + 1);
    s->variadic |= many;
    if (!optional) s->n_required = s->n_inputs; /* an optional input may stand before a required one */
  }
}

static int choice_position(const char *choices, const char *name) {
  size_t n = strlen(name);
  for (int i = 0;; i++) {
    size_t length = strcspn(choices, "|");
    if (length == n && !strncmp(choices, name, n)) return i;
    SL_ASSERT(choices[length]);
    choices += length + 1;
  }
}

static void read_default(sl_op_attr *a, char *text) {
  if (a->kind == 'l' || a->kind == 'L') {
    for (char *p = text + 1; *p && *p != '}';) {
      SL_ASSERT(a->n_list < 8);
      a->list[a->n_list++] = (int)strtol(p, &p, 10);
      if (*p == ',') p++;
    }
  } else if (a->kind == 'e') {
    a->number = choice_position(a->choices, text);
  } else if (a->kind == 't') {
    sl_dtype d = SL_F32;
    SL_ASSERT(sl_dtype_from_name(text, &d));
    a->number = d;
  } else {
    a->number = strtod(text, NULL);
  }
}

static void read_attr(char *word, sl_op_attr *a, int *next_int, int *next_float) {
  char *value = strchr(word, '='), *colon = strchr(word, ':');
  SL_ASSERT(colon && (size_t)(colon - word) < sizeof a->name);
  if (value) *value++ = 0;
  *colon = 0;
  memcpy(a->name, word, (size_t)(colon - word) + 1);
  a->kind = colon[1];
  a->required = !value;
  if (a->kind == 'e') {
    size_t n = strcspn(colon + 3, ")");
    SL_ASSERT(colon[2] == '(' && n < sizeof a->choices);
    memcpy(a->choices, colon + 3, n);
  }
  if (a->kind == 'f') a->slot = (*next_float)++;
  else a->slot = *next_int, *next_int += a->kind == 'l' || a->kind == 'L' ? SL_ATTR_LIST : 1;
  SL_ASSERT(*next_int <= SL_ATTR_INTS && *next_float <= SL_ATTR_FLOATS);
  if (value) read_default(a, value);
}

void sl_op_describe(const sl_op *op, sl_op_signature *out) {
  memset(out, 0, sizeof *out);
  read_inputs(op->inputs, out);
  char word[160];
  int next_int = 0, next_float = 0;
  for (const char *at = op->attrs; next_word(&at, word, sizeof word);) {
    SL_ASSERT(out->n_attrs < (int)(sizeof out->attr / sizeof *out->attr));
    read_attr(word, &out->attr[out->n_attrs++], &next_int, &next_float);
  }
}

sl_attrs sl_op_defaults(const sl_op *op) {
  sl_attrs a = {{0}, {0}};
  sl_op_signature s;
  sl_op_describe(op, &s);
  for (int k = 0; k < s.n_attrs; k++) {
    const sl_op_attr *t = &s.attr[k];
    if (t->kind == 'f') {
      a.f[t->slot] = t->number;
    } else if (t->kind == 'l' || t->kind == 'L') {
      a.i[t->slot] = t->n_list;
      for (int i = 0; i < t->n_list; i++) a.i[t->slot + 1 + i] = t->list[i];
    } else {
      a.i[t->slot] = (int64_t)t->number;
    }
  }
  return a;
}
