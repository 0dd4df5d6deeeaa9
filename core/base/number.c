#include "base/number.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double sl_number_from_text(const char *text) {
  const char *sign = localeconv()->decimal_point, *point = strchr(text, '.');
  if (!point || !strcmp(sign, ".")) return strtod(text, NULL);
  char here[128];
  snprintf(here, sizeof here, "%.*s%s%.80s", (int)(point - text < 40 ? point - text : 40), text, sign, point + 1);
  return strtod(here, NULL);
}
