/* The library's version. The build reads it from here. */
#ifndef SLUICE_VERSION_H
#define SLUICE_VERSION_H

#define SLUICE_VERSION_MAJOR 0
#define SLUICE_VERSION_MINOR 1
#define SLUICE_VERSION_PATCH 0
#define SLUICE_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that runs, as SLUICE_VERSION: another one than the header's if a host was built with an
 * older header. */
const char *sl_version(void);

#ifdef __cplusplus
}
#endif

#endif
