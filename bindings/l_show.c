/* core.draw: pictures in the terminal, through libchafa: Kitty's or Sixel graphics where the terminal has them, else
 * Unicode. */
#include <chafa.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/png.h"
#include "lcore.h"

typedef struct terminal {
  ChafaTermInfo *info;
  ChafaPixelMode pixels;
  ChafaCanvasMode colours;
  int columns, rows, cell_width, cell_height;
} terminal;

static terminal look_at_terminal(void) {
  terminal t = {.columns = 80, .rows = 24, .cell_width = 10, .cell_height = 20};
  gchar **environment = g_get_environ();
  t.info = chafa_term_db_detect(chafa_term_db_get_default(), environment);
  g_strfreev(environment);
  bool kitty = chafa_term_info_have_seq(t.info, CHAFA_TERM_SEQ_BEGIN_KITTY_IMMEDIATE_IMAGE_V1);
  bool sixel = chafa_term_info_have_seq(t.info, CHAFA_TERM_SEQ_BEGIN_SIXELS);
  t.pixels = kitty ? CHAFA_PIXEL_MODE_KITTY : sixel ? CHAFA_PIXEL_MODE_SIXELS : CHAFA_PIXEL_MODE_SYMBOLS;
  bool direct = chafa_term_info_have_seq(t.info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_DIRECT);
  bool many = chafa_term_info_have_seq(t.info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_256);
  bool some = chafa_term_info_have_seq(t.info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_16);
  t.colours = direct ? CHAFA_CANVAS_MODE_TRUECOLOR
              : many ? CHAFA_CANVAS_MODE_INDEXED_256
              : some ? CHAFA_CANVAS_MODE_INDEXED_16
                     : CHAFA_CANVAS_MODE_FGBG;
  struct winsize w;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 && w.ws_row > 1) {
    t.columns = w.ws_col;
    t.rows = w.ws_row;
    if (w.ws_xpixel > w.ws_col && w.ws_ypixel > w.ws_row) {
      t.cell_width = w.ws_xpixel / w.ws_col;
      t.cell_height = w.ws_ypixel / w.ws_row;
    }
  }
  return t;
}

/* Prints u8 [H,W,C] to stderr, as large as the picture is or the terminal allows. */
static void print_picture(const sl_tensor *grid) {
  const sl_shape *s = sl_tensor_shape(grid);
  terminal t = look_at_terminal();
  int height = (int)s->dim[0], width = (int)s->dim[1], channels = (int)s->dim[2];
  int columns = (width + t.cell_width - 1) / t.cell_width * 2, rows = (height + t.cell_height - 1) / t.cell_height * 2;
  if (columns > t.columns - 1) columns = t.columns - 1;
  if (rows > t.rows - 2) rows = t.rows - 2;
  chafa_calc_canvas_geometry(width, height, &columns, &rows, (float)t.cell_width / (float)t.cell_height, TRUE, FALSE);
  ChafaSymbolMap *symbols = chafa_symbol_map_new();
  chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_SPACE);
  ChafaCanvasConfig *config = chafa_canvas_config_new();
  chafa_canvas_config_set_geometry(config, columns, rows);
  chafa_canvas_config_set_cell_geometry(config, t.cell_width, t.cell_height);
  chafa_canvas_config_set_pixel_mode(config, t.pixels);
  chafa_canvas_config_set_canvas_mode(config, t.colours);
  chafa_canvas_config_set_symbol_map(config, symbols);
  ChafaCanvas *canvas = chafa_canvas_new(config);
  guint8 *rgb = g_malloc((gsize)height * (gsize)width * 3);
  const uint8_t *p = sl_tensor_data(grid);
  for (gsize i = 0; i < (gsize)height * (gsize)width; i++)
    for (int c = 0; c < 3; c++) rgb[i * 3 + (gsize)c] = p[i * (gsize)channels + (gsize)(channels == 3 ? c : 0)];
  chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, rgb, width, height, width * 3);
  GString *text = chafa_canvas_print(canvas, t.info);
  fwrite(text->str, 1, text->len, stderr);
  fputc('\n', stderr);
  fflush(stderr);
  g_string_free(text, TRUE);
  g_free(rgb);
  chafa_canvas_unref(canvas);
  chafa_canvas_config_unref(config);
  chafa_symbol_map_unref(symbols);
  chafa_term_info_unref(t.info);
}

/* core.draw(images[, columns]): float [N,C,H,W] in [-1, 1], C = 1 or 3, as sluice.save_png draws them */
static int l_draw(lua_State *L) {
  sl_tensor *images = slL_check_tensor(L, 1), **grid = slL_push_tensor(L);
  sl_png_options o = {.columns = (int)luaL_optinteger(L, 2, 0)};
  slL_try(L, sl_image_grid(images, &o, grid));
  print_picture(*grid);
  return 0;
}

void slL_open_show(lua_State *L) { slL_core(L, "draw", l_draw); }
