/* Pictures in the terminal, through libchafa: Kitty's or Sixel graphics where the terminal has them, else Unicode. */
#include <chafa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/png.h"
#include "lcore.h"

typedef struct terminal {
  FILE *out;
  ChafaTermInfo *info;
  ChafaPixelMode pixels;
  ChafaCanvasMode colours;
  bool grey; /* graphics without colours */
  int columns, rows, cell_width, cell_height;
} terminal;

/* Where the user looks: stdout, or stderr where stdout goes elsewhere; NULL if neither is a terminal that can move its
 * cursor. */
static FILE *terminal_file(void) {
  const char *term = getenv("TERM");
  if (!term || !*term || !strcmp(term, "dumb")) return NULL;
  return isatty(STDOUT_FILENO) ? stdout : isatty(STDERR_FILENO) ? stderr : NULL;
}

static void read_size(terminal *t) {
  struct winsize w;
  if (ioctl(fileno(t->out), TIOCGWINSZ, &w) != 0 || w.ws_col < 2 || w.ws_row < 3) return;
  t->columns = w.ws_col;
  t->rows = w.ws_row;
  if (w.ws_xpixel > w.ws_col && w.ws_ypixel > w.ws_row) {
    t->cell_width = w.ws_xpixel / w.ws_col;
    t->cell_height = w.ws_ypixel / w.ws_row;
  }
}

static terminal look_at_terminal(FILE *out) {
  terminal t = {.out = out, .columns = 80, .rows = 24, .cell_width = 10, .cell_height = 20};
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
  const char *no_colours = getenv("NO_COLOR"); /* no-color.org */
  t.grey = no_colours && *no_colours;
  if (t.grey && t.pixels == CHAFA_PIXEL_MODE_SYMBOLS) t.colours = CHAFA_CANVAS_MODE_FGBG;
  read_size(&t);
  return t;
}

/* Three bytes a pixel, all the same if it is to be grey: Rec. 601's luma. */
static guint8 *rgb_of(const uint8_t *p, gsize n, gsize channels, bool grey) {
  guint8 *rgb = g_malloc(n * 3);
  for (gsize i = 0; i < n; i++, p += channels) {
    const uint8_t r = p[0], g = channels == 3 ? p[1] : r, b = channels == 3 ? p[2] : r;
    const guint8 luma = (guint8)((299 * r + 587 * g + 114 * b + 500) / 1000);
    rgb[i * 3] = grey ? luma : r;
    rgb[i * 3 + 1] = grey ? luma : g;
    rgb[i * 3 + 2] = grey ? luma : b;
  }
  return rgb;
}

/* The picture's text, as large as it is or max_rows and the terminal allow; *rows: how many it takes. */
static GString *picture_text(const terminal *t, const sl_tensor *grid, int max_rows, int *rows) {
  const sl_shape *s = sl_tensor_shape(grid);
  int height = (int)s->dim[0], width = (int)s->dim[1], channels = (int)s->dim[2];
  bool symbols_only = t->pixels == CHAFA_PIXEL_MODE_SYMBOLS; /* a cell shows about two pixels, one above the other */
  int columns = symbols_only ? width : (width + t->cell_width - 1) / t->cell_width * 2;
  *rows = symbols_only ? (height + 1) / 2 : (height + t->cell_height - 1) / t->cell_height * 2;
  if (columns > t->columns - 1) columns = t->columns - 1;
  if (*rows > max_rows) *rows = max_rows;
  chafa_calc_canvas_geometry(width, height, &columns, rows, (float)t->cell_width / (float)t->cell_height, TRUE, FALSE);
  ChafaSymbolMap *symbols = chafa_symbol_map_new();
  chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_SPACE);
  ChafaCanvasConfig *config = chafa_canvas_config_new();
  chafa_canvas_config_set_geometry(config, columns, *rows);
  chafa_canvas_config_set_cell_geometry(config, t->cell_width, t->cell_height);
  chafa_canvas_config_set_pixel_mode(config, t->pixels);
  chafa_canvas_config_set_canvas_mode(config, t->colours);
  chafa_canvas_config_set_symbol_map(config, symbols);
  ChafaCanvas *canvas = chafa_canvas_new(config);
  guint8 *rgb = rgb_of(sl_tensor_data(grid), (gsize)height * (gsize)width, (gsize)channels, t->grey);
  chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, rgb, width, height, width * 3);
  GString *text = chafa_canvas_print(canvas, t->info);
  g_free(rgb);
  chafa_canvas_unref(canvas);
  chafa_canvas_config_unref(config);
  chafa_symbol_map_unref(symbols);
  return text;
}

/* Room for the rows is made first, and the cursor put back: terminals differ in where graphics leave it. over: rows of
 * the picture above that this one takes the place of. */
static void print_picture(const terminal *t, const GString *text, int rows, int over) {
  if (over) fprintf(t->out, "\r\033[%dA", over);
  if (over && t->pixels == CHAFA_PIXEL_MODE_KITTY) fputs("\033_Ga=d,d=C,q=2\033\\", t->out); /* the one at the cursor */
  if (over) fputs("\033[J", t->out);
  for (int i = 0; i < rows; i++) fputc('\n', t->out);
  fprintf(t->out, "\033[%dA\0337", rows);
  fwrite(text->str, 1, text->len, t->out);
  fprintf(t->out, "\0338\033[%dB\r", rows);
  fflush(t->out);
}

static int option(lua_State *L, const char *name, int def) {
  if (lua_type(L, 3) != LUA_TTABLE) return def;
  lua_getfield(L, 3, name);
  int v = (int)luaL_optinteger(L, -1, def);
  lua_pop(L, 1);
  return v;
}

/* core.draw(images[, columns[, { rows = most of the terminal's, over = rows }]]) -> rows, nil without a terminal: float
 * [N,C,H,W] in [-1, 1], C = 1 or 3, as sluice.save_png draws them. over: of an earlier picture just above, to be
 * replaced. */
static int l_draw(lua_State *L) {
  sl_tensor *images = slL_check_tensor(L, 1), **grid = slL_push_tensor(L);
  sl_png_options o = {.columns = (int)luaL_optinteger(L, 2, 0)};
  FILE *out = terminal_file();
  if (!out) return 0;
  slL_try(L, sl_image_grid(images, &o, grid));
  terminal t = look_at_terminal(out);
  int rows, most = option(L, "rows", t.rows), over = option(L, "over", 0);
  if (most > t.rows - 2) most = t.rows - 2;
  if (over > t.rows - 1) over = 0; /* it has scrolled out */
  GString *text = picture_text(&t, *grid, most < 1 ? 1 : most, &rows);
  print_picture(&t, text, rows, over);
  g_string_free(text, TRUE);
  chafa_term_info_unref(t.info);
  lua_pushinteger(L, rows);
  return 1;
}

/* core.terminal() -> rows, columns of the terminal that core.draw draws in; nothing without one */
static int l_terminal(lua_State *L) {
  terminal t = {.out = terminal_file(), .columns = 80, .rows = 24};
  if (!t.out) return 0;
  read_size(&t);
  lua_pushinteger(L, t.rows);
  lua_pushinteger(L, t.columns);
  return 2;
}

void slL_open_show(lua_State *L) {
  slL_core(L, "draw", l_draw);
  slL_core(L, "terminal", l_terminal);
}
