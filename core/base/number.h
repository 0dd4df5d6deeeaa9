/* Numbers in text that this library wrote or holds: with a point, whatever the program's locale. */
#ifndef SL_BASE_NUMBER_H
#define SL_BASE_NUMBER_H

/* As strtod in the C locale; 0 for what is no number. */
double sl_number_from_text(const char *text);

#endif
