#include "io/picture.h"

#include <string.h>

#include "base/file.h"
#include "io/jpeg.h"
#include "io/png.h"

static sl_status read_any(sl_context *ctx, const char *path, sl_tensor **out) {
  sl_file_map map;
  SL_TRY(sl_file_map_open(path, &map));
  bool jpeg = map.size >= 3 && memcmp(map.data, "\xff\xd8\xff", 3) == 0;
  bool png = map.size >= 8 && memcmp(map.data, "\x89PNG\r\n\x1a\n", 8) == 0;
  size_t size = map.size;
  sl_file_map_close(&map);
  SL_REQUIRE(size > 0, FORMAT, "%s: is empty, expected a PNG or a JPEG", path);
  SL_REQUIRE(jpeg || png, FORMAT, "%s: is neither a PNG nor a JPEG", path);
  return jpeg ? sl_jpeg_read(ctx, path, out) : sl_png_read(ctx, path, out);
}

static void convert_row(const uint8_t *from, int64_t has, uint8_t *to, int channels, int64_t n) {
  for (int64_t i = 0; i < n; i++, from += has, to += channels) {
    if (channels == 3)
      for (int c = 0; c < 3; c++) to[c] = from[has < 3 ? 0 : c];
    else to[0] = has < 3 ? from[0] : (uint8_t)((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 32768u) >> 16);
  }
}

sl_status sl_picture_read(sl_context *ctx, const char *path, int channels, sl_tensor **out) {
  *out = NULL;
  sl_tensor *any;
  SL_REQUIRE(channels == 1 || channels == 3, ARG, "picture: channels is %d, expected 1 or 3", channels);
  SL_TRY(read_any(ctx, path, &any));
  const sl_shape *s = sl_tensor_shape(any);
  if (s->dim[2] == channels) {
    *out = any;
    return SL_STATUS_OK;
  }
  sl_status status = sl_tensor_new(ctx, NULL, SL_U8, &SL_SHAPE(s->dim[0], s->dim[1], channels), out);
  if (status == SL_STATUS_OK)
    convert_row(sl_tensor_data(any), s->dim[2], sl_tensor_data(*out), channels, s->dim[0] * s->dim[1]);
  sl_tensor_release(any);
  return status;
}

sl_status sl_image_load(sl_context *ctx, const char *path, sl_tensor **out) {
  *out = NULL;
  sl_tensor *bytes;
  SL_TRY(sl_picture_read(ctx, path, 3, &bytes));
  const sl_shape *s = sl_tensor_shape(bytes);
  int64_t area = s->dim[0] * s->dim[1];
  sl_status status = sl_tensor_new(ctx, NULL, SL_F32, &SL_SHAPE(3, s->dim[0], s->dim[1]), out);
  if (status == SL_STATUS_OK) {
    const uint8_t *from = sl_tensor_data(bytes);
    float *to = sl_tensor_data(*out);
    for (int64_t c = 0; c < 3; c++)
      for (int64_t i = 0; i < area; i++) *to++ = (float)from[i * 3 + c] / 127.5f - 1.0f;
  }
  sl_tensor_release(bytes);
  return status;
}
