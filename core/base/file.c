#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 16 };

struct sl_file_writer {
  sl_context *ctx;
  int fd;
  bool failed;     /* the temporary file is gone already */
  char *path;      /* links resolved */
  char *temp;      /* NULL: path is no regular file (a pipe, /dev/stdout), written in place */
  size_t used;     /* bytes waiting in buffer */
  uint8_t *buffer; /* BUFFER bytes */
};

static sl_status io_fail(const char *path, const char *what) {
  return sl_fail(SL_STATUS_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static int open_to_read(const char *path) {
  int fd;
  do fd = open(path, O_RDONLY | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  return fd;
}

/* --- reading --- */

sl_status sl_file_read(sl_context *ctx, const char *path, void **data, size_t *size) {
  *data = NULL;
  *size = 0;
  int fd = open_to_read(path);
  if (fd < 0) return io_fail(path, "open");
  sl_status status = SL_STATUS_OK;
  struct stat st;
  size_t capacity = BUFFER, used = 0;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) capacity = (size_t)st.st_size + 2;
  char *p = sl_alloc(ctx, capacity);
  if (!p) status = SL_STATUS_OOM;
  while (status == SL_STATUS_OK) { /* to the end, wherever it is: pipes and /proc have no size */
    if (used + 1 >= capacity) {
      char *grown = sl_realloc(ctx, p, capacity * 2);
      if (!grown) {
        status = SL_STATUS_OOM;
        break;
      }
      p = grown;
      capacity *= 2;
    }
    ssize_t got = read(fd, p + used, capacity - used - 1);
    if (got == 0) break;
    if (got > 0) used += (size_t)got;
    else if (errno != EINTR) status = io_fail(path, "read");
  }
  close(fd);
  if (status != SL_STATUS_OK) {
    sl_free(ctx, p);
    return status;
  }
  p[used] = 0;
  *data = p;
  *size = used;
  return SL_STATUS_OK;
}

sl_status sl_file_map_open(const char *path, sl_file_map *out) {
  *out = (sl_file_map){0};
  SL_REQUIRE(path, ARG, "path is NULL");
  int fd = open_to_read(path);
  if (fd < 0) return io_fail(path, "open");
  sl_status status = SL_STATUS_OK;
  struct stat st;
  if (fstat(fd, &st) != 0) {
    status = io_fail(path, "read its size");
  } else if (!S_ISREG(st.st_mode)) {
    const char *kind = S_ISDIR(st.st_mode) ? "a folder" : "no regular file";
    status = sl_fail(SL_STATUS_IO, "%s: is %s, expected a file", path, kind);
  } else if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) status = io_fail(path, "map");
    else *out = (sl_file_map){.data = p, .size = (size_t)st.st_size};
  }
  close(fd);
  return status;
}

void sl_file_map_close(sl_file_map *map) {
  if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
  *map = (sl_file_map){0};
}

/* --- writing --- */

static void discard(sl_file_writer *w) {
  if (w->fd >= 0) close(w->fd);
  w->fd = -1;
  if (w->temp && !w->failed) unlink(w->temp);
  w->failed = true;
}

static void writer_free(sl_file_writer *w) {
  sl_context *ctx = w->ctx;
  sl_free(ctx, w->buffer);
  sl_free(ctx, w->temp);
  sl_free(ctx, w->path);
  sl_free(ctx, w);
}

static sl_status open_temp(sl_file_writer *w, const struct stat *old) {
  static atomic_uint counter;
  size_t room = strlen(w->path) + 48;
  w->temp = sl_alloc(w->ctx, room);
  if (!w->temp) return SL_STATUS_OOM;
  do {
    snprintf(w->temp, room, "%s.tmp-%ld-%u", w->path, (long)getpid(), atomic_fetch_add(&counter, 1));
    w->fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (w->fd < 0 && (errno == EEXIST || errno == EINTR));
  if (w->fd < 0) return io_fail(w->path, "write");
  /* The new file keeps the old one's permissions, where that is allowed. */
  if (old && fchmod(w->fd, old->st_mode & 07777) != 0) errno = 0;
  return SL_STATUS_OK;
}

static sl_status open_target(sl_file_writer *w, const char *path) {
  char resolved[PATH_MAX];
  struct stat st;
  bool exists = stat(path, &st) == 0;
  /* A link stays a link: what it points to is replaced. */
  w->path = sl_strdup(w->ctx, exists && realpath(path, resolved) ? resolved : path);
  if (!w->path) return SL_STATUS_OOM;
  if (!exists || S_ISREG(st.st_mode)) return open_temp(w, exists ? &st : NULL);
  w->fd = open(path, O_WRONLY | O_CLOEXEC);
  return w->fd < 0 ? io_fail(path, "write") : SL_STATUS_OK;
}

sl_status sl_file_writer_open(sl_context *ctx, const char *path, sl_file_writer **out) {
  *out = NULL;
  SL_REQUIRE(path, ARG, "path is NULL");
  sl_file_writer *w = sl_alloc_zero(ctx, sizeof *w);
  if (!w) return SL_STATUS_OOM;
  w->ctx = ctx;
  w->fd = -1;
  w->buffer = sl_alloc(ctx, BUFFER);
  sl_status status = w->buffer ? open_target(w, path) : SL_STATUS_OOM;
  if (status != SL_STATUS_OK) {
    w->failed = true;
    writer_free(w);
    return status;
  }
  *out = w;
  return SL_STATUS_OK;
}

static sl_status write_all(sl_file_writer *w, const uint8_t *p, size_t size) {
  while (size) {
    ssize_t n = write(w->fd, p, size);
    if (n > 0) {
      p += n;
      size -= (size_t)n;
    } else if (n == 0 || errno != EINTR) {
      sl_status status = io_fail(w->path, "write");
      discard(w);
      return status;
    }
  }
  return SL_STATUS_OK;
}

static sl_status flush(sl_file_writer *w) {
  size_t n = w->used;
  w->used = 0;
  return write_all(w, w->buffer, n);
}

sl_status sl_file_write(sl_file_writer *w, const void *data, size_t size) {
  SL_REQUIRE(!w->failed, IO, "%s: an earlier write failed", w->path);
  if (size > BUFFER - w->used) SL_TRY(flush(w));
  if (size >= BUFFER) return write_all(w, data, size);
  if (size) memcpy(w->buffer + w->used, data, size);
  w->used += size;
  return SL_STATUS_OK;
}

/* So that the new name survives a power cut. Some file systems cannot: EINVAL is not an error. */
static sl_status sync_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t n = slash ? (size_t)(slash - path) : 0;
  if (n >= sizeof folder) return SL_STATUS_OK;
  if (slash && n == 0) n = 1;
  memcpy(folder, slash ? path : ".", n ? n : 1);
  folder[n ? n : 1] = 0;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SL_STATUS_OK; /* a folder we may write to but not read */
  int rc = fsync(fd);
  sl_status status = rc != 0 && errno != EINVAL && errno != EROFS ? io_fail(folder, "sync the folder") : SL_STATUS_OK;
  close(fd);
  return status;
}

static sl_status commit(sl_file_writer *w) {
  SL_REQUIRE(!w->failed, IO, "%s: an earlier write failed", w->path);
  SL_TRY(flush(w));
  if (fsync(w->fd) != 0 && (w->temp || (errno != EINVAL && errno != EROFS))) return io_fail(w->path, "sync");
  int fd = w->fd;
  w->fd = -1;
  if (close(fd) != 0 && errno != EINTR) return io_fail(w->path, "close");
  if (!w->temp) return SL_STATUS_OK;
  if (rename(w->temp, w->path) != 0) return io_fail(w->path, "replace");
  w->failed = true; /* the temporary name is gone: nothing to remove */
  return sync_folder(w->path);
}

sl_status sl_file_commit(sl_file_writer *w) {
  sl_status status = commit(w);
  if (status != SL_STATUS_OK) discard(w);
  writer_free(w);
  return status;
}

void sl_file_abort(sl_file_writer *w) {
  if (!w) return;
  discard(w);
  writer_free(w);
}

sl_status sl_make_dirs(const char *path) {
  char part[PATH_MAX];
  size_t n = strlen(path);
  SL_REQUIRE(n > 0 && n < sizeof part, ARG, "folder name has %zu bytes, expected 1 to %zu", n, sizeof part - 1);
  memcpy(part, path, n + 1);
  for (size_t i = 1; i <= n; i++) {
    if (part[i] != '/' && part[i] != 0) continue;
    char keep = part[i];
    part[i] = 0;
    struct stat st;
    bool there = mkdir(part, 0777) == 0 || (stat(part, &st) == 0 && S_ISDIR(st.st_mode));
    if (!there) return io_fail(part, "make the folder");
    part[i] = keep;
  }
  return SL_STATUS_OK;
}
