#include "io/png.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include "io/png_job.h"

enum { MAX_SIDE = 1000000, DEFLATE_RATIO = 1032 }; /* libpng's own limit; deflate's best */

/* --- writing --- */

typedef struct layout { /* of the pixels, strides in elements */
  int64_t n, channels, height, width;
  int64_t stride_n, stride_c, stride_h, stride_w;
  int64_t columns, rows, pad, scale, out_height, out_width;
} layout;

bool sl_png_quant_from_name(const char *name, sl_png_quant *out) {
  if (strcmp(name, "dit") != 0 && strcmp(name, "adm") != 0) return false;
  *out = strcmp(name, "dit") == 0 ? SL_PNG_DIT : SL_PNG_ADM;
  return true;
}

/* One rounding per statement: no compiler may contract them. NaN becomes 0. */
static uint8_t quantize(float x, sl_png_quant quant) {
  float y;
  if (quant == SL_PNG_DIT) {
    y = x * 0.5f;
    y = y + 0.5f;
    y = y > 0 ? y < 1 ? y : 1 : 0;
    y = y * 255.0f;
    y = y + 0.5f;
  } else {
    y = x + 1.0f;
    y = y * 127.5f;
  }
  return (uint8_t)(y > 0 ? y < 255 ? y : 255 : 0);
}

static sl_status check_options(const sl_png_options *o) {
  SL_REQUIRE(o->columns >= 0 && o->columns <= MAX_SIDE, ARG, "save_png: columns is %d, expected 1 … %d", o->columns,
             MAX_SIDE);
  SL_REQUIRE(o->scale >= 0 && o->scale <= 1024, ARG, "save_png: scale is %d, expected 1 … 1024", o->scale);
  SL_REQUIRE(o->pad <= 1024, ARG, "save_png: pad is %d, expected at most 1024", o->pad);
  SL_REQUIRE(o->quant == SL_PNG_DIT || o->quant == SL_PNG_ADM, ARG, "save_png: quant is %d, expected dit or adm",
             (int)o->quant);
  return sl__png_check_text(o->n_text, o->text);
}

static sl_status plan_layout(const sl_tensor *images, const sl_png_options *o, layout *l) {
  const sl_shape *s = sl_tensor_shape(images);
  sl_dtype dtype = sl_tensor_dtype(images);
  bool bytes = dtype == SL_U8;
  SL_REQUIRE(bytes || sl_dtype_is_float(dtype), DTYPE, "save_png: images are %s, expected a float dtype or u8",
             sl_dtype_name(dtype));
  const char *expected = bytes ? "[N,H,W,C] or [H,W,C], as u8" : "[N,C,H,W] or [C,H,W]";
  SL_REQUIRE(s->rank == 3 || s->rank == 4, SHAPE, "save_png: images are %s, expected %s", sl_shape_text(s), expected);
  const int64_t *d = s->dim + (s->rank - 3);
  l->n = s->rank == 4 ? s->dim[0] : 1;
  l->channels = bytes ? d[2] : d[0];
  l->height = bytes ? d[0] : d[1];
  l->width = bytes ? d[1] : d[2];
  SL_REQUIRE(l->channels != 4, SHAPE,
             "save_png: images are %s: 4 channels look like latents, which a VAE must decode first; expected %s with "
             "1 or 3 channels",
             sl_shape_text(s), expected);
  SL_REQUIRE(l->channels == 1 || l->channels == 3, SHAPE,
             "save_png: images are %s: %lld channels; expected %s, C = 1 or 3", sl_shape_text(s),
             (long long)l->channels, expected);
  SL_REQUIRE(l->n > 0 && l->height > 0 && l->width > 0, SHAPE, "save_png: images are %s: nothing to draw",
             sl_shape_text(s));
  l->stride_n = l->channels * l->height * l->width;
  l->stride_c = bytes ? 1 : l->height * l->width;
  l->stride_w = bytes ? l->channels : 1;
  l->stride_h = l->width * l->stride_w;
  int64_t columns = o->columns ? o->columns : (int64_t)ceil(sqrt((double)l->n));
  l->columns = columns < l->n ? columns : l->n;
  l->rows = (l->n + l->columns - 1) / l->columns;
  l->pad = l->n == 1 || o->pad < 0 ? 0 : o->pad ? o->pad : 2;
  l->scale = o->scale ? o->scale : 1;
  SL_REQUIRE(l->width <= MAX_SIDE && l->height <= MAX_SIDE && l->rows <= MAX_SIDE && l->columns <= MAX_SIDE, SHAPE,
             "save_png: images are %s: sides above %d", sl_shape_text(s), MAX_SIDE);
  l->out_height = l->rows * (l->height * l->scale + l->pad) + l->pad;
  l->out_width = l->columns * (l->width * l->scale + l->pad) + l->pad;
  SL_REQUIRE(l->out_width <= MAX_SIDE && l->out_height <= MAX_SIDE, SHAPE,
             "save_png: the picture would be %lld x %lld, at most %d each way", (long long)l->out_width,
             (long long)l->out_height, MAX_SIDE);
  return SL_STATUS_OK;
}

/* Line `y` of the picture, out_width * channels bytes. */
static void draw_line(const layout *l, const sl_tensor *images, sl_png_quant quant, int64_t y, uint8_t *line) {
  int64_t tile = l->height * l->scale + l->pad, row = y / tile, inside = y % tile - l->pad;
  memset(line, 0, (size_t)(l->out_width * l->channels));
  if (row >= l->rows || inside < 0) return;
  const float *f = sl_tensor_dtype(images) == SL_F32 ? sl_tensor_data(images) : NULL;
  const uint8_t *u = sl_tensor_data(images);
  for (int64_t column = 0; column < l->columns && row * l->columns + column < l->n; column++) {
    int64_t from = (row * l->columns + column) * l->stride_n + inside / l->scale * l->stride_h;
    uint8_t *to = line + (l->pad + column * (l->width * l->scale + l->pad)) * l->channels;
    for (int64_t x = 0; x < l->width * l->scale; x++) {
      for (int64_t c = 0; c < l->channels; c++) {
        int64_t i = from + x / l->scale * l->stride_w + c * l->stride_c;
        *to++ = f ? quantize(f[i], quant) : u[i];
      }
    }
  }
}

/* What is not finite comes of a model or a sampler that went wrong; a picture alone would not tell. */
static void warn_nonfinite(const sl_tensor *images, const char *path) {
  const float *f = sl_tensor_data(images);
  const int64_t n = sl_shape_numel(sl_tensor_shape(images));
  int64_t bad = 0;
  for (int64_t i = 0; i < n; i++) bad += !isfinite(f[i]);
  if (bad)
    sl_context_log(sl_tensor_context(images), "warning: %s: %lld of %lld values are not finite; NaN is drawn black",
                   path, (long long)bad, (long long)n);
}

static void on_write(png_structp png, png_bytep data, size_t size) {
  sl_png_job *j = png_get_io_ptr(png);
  j->status = sl_file_write(j->w, data, size);
  if (j->status != SL_STATUS_OK) png_error(png, "write");
}

static void on_flush(png_structp png) { (void)png; }

static sl_status encode(sl_png_job *j, const layout *l, const sl_tensor *images, const sl_png_options *o,
                        uint8_t *line) {
  png_structp png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, j, sl__png_error, sl__png_warning, j,
                                              sl__png_alloc, sl__png_free);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  if (!info) {
    png_destroy_write_struct(&png, NULL);
    return j->status != SL_STATUS_OK ? j->status : SL_STATUS_OOM;
  }
  if (setjmp(png_jmpbuf(png)) == 0) { /* nothing that is used below changes after this */
    png_set_write_fn(png, j, on_write, on_flush);
    png_set_IHDR(png, info, (png_uint_32)l->out_width, (png_uint_32)l->out_height, 8,
                 l->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    sl__png_put_text(png, info, o->n_text, o->text);
    png_write_info(png, info);
    for (int64_t y = 0; y < l->out_height; y++) {
      draw_line(l, images, o->quant, y, line);
      png_write_row(png, line);
    }
    png_write_end(png, info);
    j->status = SL_STATUS_OK; /* memory that libpng could do without may have failed */
  }
  png_destroy_write_struct(&png, &info);
  return j->status;
}

static sl_status write_grid(const char *path, const layout *l, const sl_tensor *images, const sl_png_options *o) {
  sl_png_job j = {.ctx = sl_tensor_context(images), .path = path, .blame = SL_STATUS_IO};
  uint8_t *line = sl_alloc(j.ctx, (size_t)(l->out_width * l->channels));
  if (!line) return SL_STATUS_OOM;
  sl_status status = sl_file_writer_open(j.ctx, path, &j.w);
  if (status == SL_STATUS_OK) {
    status = encode(&j, l, images, o, line);
    if (status == SL_STATUS_OK) status = sl_file_commit(j.w);
    else sl_file_abort(j.w);
  }
  sl_free(j.ctx, line);
  return status;
}

/* Checks, plans, and brings the pixels to the CPU as u8 or f32; the caller releases *pixels. */
static sl_status prepare(const sl_tensor *images, const sl_png_options *options, sl_png_options *o, layout *l,
                         sl_tensor **pixels) {
  *o = options ? *options : (sl_png_options){0};
  SL_TRY(check_options(o));
  SL_TRY(plan_layout(images, o, l));
  return sl_tensor_to(images, sl_tensor_dtype(images) == SL_U8 ? SL_U8 : SL_F32, &sl_device_cpu, pixels);
}

sl_status sl_png_write_as(const char *path, const sl_tensor *images, const sl_png_options *options) {
  sl_png_options o;
  layout l;
  sl_tensor *pixels;
  SL_TRY(prepare(images, options, &o, &l, &pixels));
  if (sl_tensor_dtype(pixels) == SL_F32) warn_nonfinite(pixels, path);
  sl_status status = write_grid(path, &l, pixels, &o);
  sl_tensor_release(pixels);
  return status;
}

sl_status sl_png_write(const char *path, const sl_tensor *images, int columns) {
  return sl_png_write_as(path, images, &(sl_png_options){.columns = columns});
}

sl_status sl_image_grid(const sl_tensor *images, const sl_png_options *options, sl_tensor **out) {
  sl_png_options o;
  layout l;
  sl_tensor *pixels;
  *out = NULL;
  SL_TRY(prepare(images, options, &o, &l, &pixels));
  sl_status status =
      sl_tensor_new(sl_tensor_context(images), NULL, SL_U8, &SL_SHAPE(l.out_height, l.out_width, l.channels), out);
  for (int64_t y = 0; status == SL_STATUS_OK && y < l.out_height; y++)
    draw_line(&l, pixels, o.quant, y, (uint8_t *)sl_tensor_data(*out) + y * l.out_width * l.channels);
  sl_tensor_release(pixels);
  return status;
}

/* --- reading --- */

/* Sets what libpng converts, and makes the tensor. */
static void begin_read(png_structp png, png_infop info, sl_png_job *j, sl_tensor **out) {
  png_set_read_fn(png, j, sl__png_on_read);
  png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
  png_read_info(png, info);
  png_set_scale_16(png);
  png_set_expand(png); /* palettes, fewer than 8 bits, transparency */
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  int64_t height = png_get_image_height(png, info), width = png_get_image_width(png, info);
  int64_t bytes = height * (int64_t)png_get_rowbytes(png, info);
  /* Palettes with transparency turn 1 bit into 32. */
  if ((uint64_t)bytes / 32 / DEFLATE_RATIO > j->map.size) png_error(png, "too short for its size");
  j->status = sl_tensor_new(j->ctx, NULL, SL_U8, &SL_SHAPE(height, width, png_get_channels(png, info)), out);
  if (j->status != SL_STATUS_OK) png_error(png, "tensor");
}

static sl_status decode(sl_png_job *j, sl_tensor **out) {
  png_structp png;
  png_infop info;
  SL_TRY(sl__png_reader(j, &png, &info));
  if (setjmp(png_jmpbuf(png)) == 0) { /* *out is memory, not a register: it survives */
    begin_read(png, info, j, out);
    size_t row_bytes = png_get_rowbytes(png, info);
    int passes = png_get_interlace_type(png, info) == PNG_INTERLACE_ADAM7 ? 7 : 1;
    for (int pass = 0; pass < passes; pass++) {
      uint8_t *row = sl_tensor_data(*out);
      for (int64_t y = 0; y < sl_tensor_shape(*out)->dim[0]; y++, row += row_bytes) png_read_row(png, row, NULL);
    }
    png_read_end(png, NULL);
    j->status = SL_STATUS_OK;
  }
  png_destroy_read_struct(&png, &info, NULL);
  return j->status;
}

sl_status sl_png_read(sl_context *ctx, const char *path, sl_tensor **out) {
  *out = NULL;
  sl_png_job j = {.ctx = ctx, .path = path, .blame = SL_STATUS_FORMAT};
  SL_TRY(sl_file_map_open(path, &j.map));
  sl_tensor *t = NULL;
  sl_status status;
  if (j.map.size >= 8 && png_sig_cmp(j.map.data, 0, 8) == 0) {
    status = decode(&j, &t);
  } else {
    bool jpeg = j.map.size >= 3 && memcmp(j.map.data, "\xff\xd8\xff", 3) == 0;
    status = sl_fail(SL_STATUS_FORMAT, "%s: is %s, expected a PNG", path, jpeg ? "a JPEG" : "no PNG");
  }
  sl_file_map_close(&j.map);
  if (status == SL_STATUS_OK) *out = t;
  else sl_tensor_release(t);
  return status;
}
