/* Lines edited with libedit. Characters are read here, not by libedit, so that signals are seen only while it waits for
 * a key: Ctrl-C drops the line, Ctrl-Z stops the process with the terminal in order, a new window size is taken up. */
#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "program_prompt.h"

#define IN_MEMORY 1000 /* entries that the arrow keys reach */

/* In the order in which they are obeyed. */
static const int watched[] = {SIGINT, SIGTSTP, SIGCONT, SIGWINCH, SIGTERM, SIGHUP};
enum { WATCHED = sizeof watched / sizeof *watched };
static volatile sig_atomic_t came[WATCHED];

/* libedit's callbacks take no argument of ours. */
static struct line {
  EditLine *el;
  History *history;
  lua_State *L;
  int complete; /* reference to the function */
  const char *prompt;
  char bytes[4096]; /* read ahead: what was pasted is not echoed by the terminal while a line of it runs */
  size_t at, end;
  sigset_t outside; /* signals that are held back elsewhere, as they were before the line */
  bool interrupted;
} line;

bool line_edited(void) {
  const char *term = getenv("TERM");
  return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* --- signals --- */

static void note(int signal_number) {
  for (int i = 0; i < WATCHED; i++)
    if (watched[i] == signal_number) came[i] = 1;
}

static void resume_line(EditLine *el) {
  el_set(el, EL_PREP_TERM, 1);
  el_resize(el);
  el_set(el, EL_REFRESH);
}

/* Does what a signal asks for; false if the line is to be dropped. */
static bool obey(EditLine *el, int signal_number) {
  switch (signal_number) {
    case SIGINT: line.interrupted = true; return false;
    case SIGTSTP:
      el_set(el, EL_PREP_TERM, 0);
      kill(getpid(), SIGSTOP);
      return true; /* SIGCONT woke it, and was noted */
    case SIGCONT: resume_line(el); return true;
    case SIGWINCH: /* the terminal moved the rows about, and only it knows where to */
      fputs("\r\033[J", stdout);
      el_resize(el);
      el_set(el, EL_REFRESH);
      return true;
    default:
      el_set(el, EL_PREP_TERM, 0);
      signal(signal_number, SIG_DFL);
      sigprocmask(SIG_SETMASK, &line.outside, NULL);
      raise(signal_number);
      return true;
  }
}

static bool obey_all(EditLine *el) {
  bool go_on = true;
  for (int i = 0; i < WATCHED; i++) {
    if (!came[i]) continue;
    came[i] = 0;
    if (!obey(el, watched[i])) go_on = false;
  }
  return go_on;
}

/* --- characters --- */

/* Waits for bytes; false at the end of the input or for a dropped line. */
static bool fill(EditLine *el) {
  line.at = line.end = 0;
  for (;;) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = ppoll(&p, 1, NULL, &line.outside);
    if (!obey_all(el)) return false;
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    ssize_t n = read(STDIN_FILENO, line.bytes, sizeof line.bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return false;
    line.end = (size_t)n;
    return true;
  }
}

/* libedit's reader: 1 and a character; 0 at the end of the input. */
static int next_character(EditLine *el, wchar_t *out) {
  mbstate_t state = {0};
  for (;;) {
    if (line.at == line.end && !fill(el)) return 0;
    size_t used = mbrtowc(out, &line.bytes[line.at++], 1, &state);
    if (used == (size_t)-2) continue; /* the character goes on */
    if (used != (size_t)-1) return 1;
    *out = L'?'; /* no character of this encoding */
    return 1;
  }
}

/* --- completion --- */

static void show_below(const char *text) {
  fputc('\n', stdout);
  fputs(text, stdout);
  fputc('\n', stdout);
  fflush(stdout);
}

static unsigned char complete(EditLine *el, int key) {
  (void)key;
  const LineInfo *info = el_line(el);
  lua_State *L = line.L;
  unsigned char done = CC_REFRESH_BEEP;
  int top = lua_gettop(L), columns = 80;
  struct winsize w;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col) columns = w.ws_col;
  lua_rawgeti(L, LUA_REGISTRYINDEX, line.complete);
  lua_pushlstring(L, info->buffer, (size_t)(info->cursor - info->buffer));
  lua_pushinteger(L, columns);
  if (lua_pcall(L, 2, 2, 0) == LUA_OK) {
    const char *insert = lua_tostring(L, -2), *below = lua_tostring(L, -1);
    if (insert && *insert && el_insertstr(el, insert) == 0) done = CC_REFRESH;
    if (below) {
      show_below(below);
      done = CC_REDISPLAY;
    }
  }
  lua_settop(L, top);
  return done;
}

/* --- the line --- */

static char *prompt_text(EditLine *el) {
  (void)el;
  return (char *)(uintptr_t)line.prompt;
}

/* UTF-8, also where the locale is C: what Sluice prints is UTF-8 too. */
static void use_locale(void) {
  setlocale(LC_CTYPE, "");
  if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

static void bind_keys(EditLine *el) {
  static const char *const keys[][2] = {
      {"^R", "em-inc-search-prev"}, {"\\e[3~", "ed-delete-next-char"}, {"\\e[1~", "ed-move-to-beg"},
      {"\\e[4~", "ed-move-to-end"}, {"\\e[H", "ed-move-to-beg"},       {"\\e[F", "ed-move-to-end"},
      {"\\eOH", "ed-move-to-beg"},  {"\\eOF", "ed-move-to-end"},       {"\\e[1;5C", "em-next-word"},
      {"\\e[1;5D", "ed-prev-word"}, {"\\e[1;3C", "em-next-word"},      {"\\e[1;3D", "ed-prev-word"},
      {"^W", "ed-delete-prev-word"}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) el_set(el, EL_BIND, keys[i][0], keys[i][1], NULL);
}

void line_open(lua_State *L, int complete_at) {
  if (!line_edited()) return;
  HistEvent event;
  use_locale();
  line.L = L;
  lua_pushvalue(L, complete_at);
  line.complete = luaL_ref(L, LUA_REGISTRYINDEX);
  line.el = el_init("sluice", stdin, stdout, stderr);
  if (!line.el) return;
  line.history = history_init();
  if (line.history) {
    history(line.history, &event, H_SETSIZE, IN_MEMORY);
    history(line.history, &event, H_SETUNIQUE, 1);
    el_set(line.el, EL_HIST, history, line.history);
  }
  el_set(line.el, EL_PROMPT, prompt_text);
  el_set(line.el, EL_EDITOR, "emacs");
  el_set(line.el, EL_GETCFN, next_character);
  /* Wide: of narrow names el_set makes copies that it never frees. */
  el_wset(line.el, EL_ADDFN, L"sluice-complete", L"completes the name before the cursor", complete);
  bind_keys(line.el);
  el_source(line.el, NULL); /* ~/.editrc */
  el_set(line.el, EL_BIND, "^I", "sluice-complete", NULL);
}

void line_close(void) {
  if (line.el) el_end(line.el);
  if (line.history) history_end(line.history);
  line.el = NULL;
  line.history = NULL;
}

void line_remember(const char *text) {
  HistEvent event;
  if (line.history) history(line.history, &event, H_ENTER, text);
}

/* Holds the watched signals back, to be let through while a key is waited for. */
static void watch(struct sigaction old[WATCHED]) {
  struct sigaction act = {.sa_handler = note};
  sigset_t held;
  sigemptyset(&act.sa_mask);
  sigemptyset(&held);
  for (int i = 0; i < WATCHED; i++) {
    came[i] = 0;
    sigaddset(&held, watched[i]);
    sigaction(watched[i], &act, &old[i]);
  }
  sigprocmask(SIG_BLOCK, &held, &line.outside);
}

static void unwatch(const struct sigaction old[WATCHED]) {
  for (int i = 0; i < WATCHED; i++) sigaction(watched[i], &old[i], NULL);
  sigprocmask(SIG_SETMASK, &line.outside, NULL);
}

static line_status read_edited(lua_State *L, const char *prompt) {
  struct sigaction old[WATCHED];
  int count = 0;
  line.prompt = prompt;
  line.interrupted = false;
  watch(old);
  el_resize(line.el);
  el_set(line.el, EL_PREP_TERM,
         1); /* before the prompt is seen: else the terminal itself would take a Ctrl-D typed at once */
  const char *text = el_gets(line.el, &count);
  unwatch(old);
  if (line.interrupted) {
    line.at = line.end = 0; /* the rest of what was pasted goes too */
    fputs("^C\n", stdout);
    fflush(stdout);
    return LINE_INTERRUPTED;
  }
  if (!text || count <= 0) return LINE_END;
  size_t n = strlen(text);
  if (n && text[n - 1] == '\n') n--;
  lua_pushlstring(L, text, n);
  return LINE_READ;
}

/* As lua5.4 reads: with the terminal's own editing, or from a pipe. */
static line_status read_plain(lua_State *L, const char *prompt) {
  char *text = NULL;
  size_t size = 0;
  fputs(prompt, stdout);
  fflush(stdout);
  errno = 0;
  ssize_t n = getline(&text, &size, stdin);
  if (n < 0) {
    bool interrupted = errno == EINTR && isatty(STDIN_FILENO);
    free(text);
    clearerr(stdin);
    if (interrupted) fputc('\n', stdout);
    return interrupted ? LINE_INTERRUPTED : LINE_END;
  }
  if (n && text[n - 1] == '\n') n--;
  lua_pushlstring(L, text, (size_t)n);
  free(text);
  return LINE_READ;
}

line_status line_read(lua_State *L, const char *prompt) {
  return line.el ? read_edited(L, prompt) : read_plain(L, prompt);
}
