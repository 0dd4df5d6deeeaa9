#!/bin/bash
# install.sh BUILD CC CXX [PRELOAD]: installs the build into a folder, moves it, and builds and runs what a host builds against it:
# every program of examples/embed, with pkg-config and with CMake's find_package, shared and static, with every compiler that there is.
# PRELOAD: of a sanitized build, what an interpreter that knows nothing of sanitizers must load first.
set -euo pipefail
build=$1 cc=$2 cxx=$3 preload=${4:-}
source=$PWD
work=$(mktemp -d "$build/install-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
die() {
  echo "install: $*" >&2
  exit 1
}

# --- where things go ---
DESTDIR=$work/staged cmake --install "$build" --prefix /opt/sluice >/dev/null
[ -x "$work/staged/opt/sluice/bin/sluice" ] || die "DESTDIR is not regarded"
mv "$work/staged/opt/sluice" "$work/prefix" # and nothing may have to be where it was installed
prefix=$work/prefix
lib=$(dirname "$(find "$prefix" -name libsluice.a)")
export PKG_CONFIG_PATH=$lib/pkgconfig LUA_CPATH="$prefix/lib/lua/5.4/?.so;;" OMP_NUM_THREADS=1
digits=$prefix/share/sluice/models/digits.safetensors
version=$(sed -n 's/#define SLUICE_VERSION "\(.*\)"/\1/p' core/sluice/version.h)
[ "$(pkg-config --modversion sluice)" = "$version" ] || die "sluice.pc says another version than $version"
[ "$("$prefix/bin/sluice" -e 'print(require("sluice").version)')" = "$version" ] || die "the installed program does not run"
[ "$(LD_PRELOAD=$preload lua5.4 -e 'print(require("sluice").version)')" = "$version" ] || die "lua5.4 does not find the installed module"

# --- what the libraries show ---
shown() { nm "$@" 2>/dev/null | awk 'NF == 3 { print $3 }'; }
no_others() {
  local others
  others=$(grep -v -E "$2" || true)
  [ -z "$others" ] || die "$1 shows $(echo "$others" | head -n 5 | tr '\n' ' ')"
}
shown -D --defined-only "$lib/libsluice.so" | no_others libsluice.so '^sl_[a-z]'
shown -D --defined-only "$prefix/lib/lua/5.4/sluice.so" | no_others sluice.so '^luaopen_sluice$'
shown -g --defined-only "$lib/libsluice.a" | no_others libsluice.a '^(sl_|__odr_asan|DW\.ref|___asan)'
shown -D --defined-only "$lib/libsluice.so" | sort >"$work/shown"
cat core/sluice/*.h | sed 's|^ \*.*||; s|/\*.*||' | grep -o '\bsl_[a-z0-9_]*(' | tr -d '(' | sort -u >"$work/declared"
lacking=$(comm -13 "$work/shown" "$work/declared" | tr '\n' ' ')
[ -z "$lacking" ] || die "libsluice.so lacks what the headers declare: $lacking"

# --- headers, each alone ---
compilers=$cc
[ -n "$preload" ] || for other in gcc clang; do
  [ "$other" = "$(basename "$cc")" ] || ! command -v $other >/dev/null || compilers+=" $other"
done
strict="-Wall -Wextra -pedantic -Wshadow -Werror -fsyntax-only -I$prefix/include"
for header in sluice.h $(cd "$prefix/include" && ls sluice/*.h); do
  for c in $compilers; do
    echo "#include <$header>" | "$c" -x c -std=c11 $strict - || die "$header does not compile alone with $c"
  done
  echo "#include <$header>" | "$cxx" -x c++ -std=c++11 $strict - || die "$header does not compile alone in C++"
done

# --- programs ---
memcheck=
if [ -z "$preload" ] && command -v valgrind >/dev/null; then
  memcheck="valgrind -q --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=9"
  memcheck+=" --suppressions=$source/tests/valgrind.supp"
fi

# run_all FOLDER STEPS [MEMCHECK…]: sample and lua-mask
run_all() {
  local at=$1 steps=$2
  shift 2
  "$@" "$at/sample" "$digits" "$work/digits.png" 1 "$steps" 2>"$work/progress" || die "sample failed: $(cat "$work/progress")"
  grep -q "step $steps of $steps" "$work/progress" || die "sample shows no progress"
  [ "$(head -c 4 "$work/digits.png" | tail -c 3)" = PNG ] || die "sample wrote no picture"
  "$@" "$at/lua-mask" "$source/examples/embed/mask.lua" | head -n 1 | grep -q '^#\{24\}\.\{24\} \.\{24\}#\{24\}$' || die "lua-mask failed"
}

# refusals FOLDER: what is wrong is said, and Ctrl-C stops
refusals() {
  local at=$1 status=0
  "$at/sample" /no/such "$work/x.png" 2>"$work/said" && die "sample takes a file that is not there"
  grep -q '/no/such' "$work/said" || die "sample does not name the file: $(cat "$work/said")"
  "$at/sample" "$digits" /dev/full 1 1 2>"$work/said" && die "sample writes to a full disk"
  grep -q '/dev/full' "$work/said" || die "sample does not tell of the full disk: $(cat "$work/said")"
  echo 'return function(t) error("at " .. t) end' >"$work/wrong.lua"
  "$at/lua-mask" "$work/wrong.lua" 2>"$work/said" && die "lua-mask takes a mask that fails"
  grep -q 'wrong.lua:1: at 0' "$work/said" || die "lua-mask does not say what the function said: $(cat "$work/said")"
  "$at/sample" "$digits" "$work/never.png" 200 1000 2>"$work/said" &
  local pid=$!
  for _ in $(seq 500); do grep -q 'step 1 ' "$work/said" && break || sleep 0.02; done
  kill -INT $pid
  wait $pid || status=$?
  [ $status = 130 ] || die "after Ctrl-C sample ends with $status, expected 130: $(tail -c 200 "$work/said")"
  [ ! -e "$work/never.png" ] || die "sample was stopped and wrote its picture"
}

for c in $compilers; do
  for static in '' 1; do
    at=$work/$(basename "$c")${static:+-static}
    cp -r examples/embed "$at"
    make -s -C "$at" CC="$c" CFLAGS="-O1 -Wall -Wextra -Werror" STATIC=$static || die "make with $c${static:+, static} failed"
    run_all "$at" 2
    echo "make, $(basename "$c")${static:+, static}: fine"
  done
done
at=$work/$(basename "$cc")
refusals "$at"
"$at/allocator" "$digits" | grep 'none leaked' || die "allocator found a leak"
LD_PRELOAD=$preload "$at/lua-states" "$digits" | grep -c '^seed . *: mean' | grep -qx 2 || die "lua-states failed"
[ -z "$memcheck" ] || { run_all "$at" 1 $memcheck && echo "valgrind: fine"; }

# --- the guide's programs, as they stand there ---
awk -v to="$work/guide" '/^```c$/ { n++; on = 1; next } /^```/ { on = 0 } on { print > (to n ".c") }' docs/guide/embed.md
for file in "$work"/guide*.c; do
  "$cc" -std=c11 -Wall -Wextra -Werror "$file" -o "${file%.c}" $(pkg-config --cflags --libs sluice) -Wl,-rpath,"$lib" || die "the guide's $(basename "$file")"
  (mkdir "${file%.c}.run" && cd "${file%.c}.run" && ln -s "$prefix/share/sluice/models" "$prefix/share/sluice/data" . && "${file%.c}" >log 2>&1) ||
    die "the guide's program: $(cat "${file%.c}.run/log")"
done
[ -s "$work/guide1.run/digits.png" ] && [ -s "$work/guide2.run/trained.safetensors" ] || die "the guide's programs wrote nothing"
echo "the guide's programs: fine"

for static in OFF ON; do
  at=$work/cmake-$static
  cmake -S examples/embed -B "$at" -D CMAKE_PREFIX_PATH="$prefix" -D CMAKE_C_COMPILER="$cc" -D CMAKE_BUILD_TYPE=Release \
    -D STATIC=$static -D CMAKE_C_COMPILER_LAUNCHER= >"$work/log" && cmake --build "$at" >>"$work/log" || { cat "$work/log"; die "find_package, STATIC=$static"; }
  run_all "$at" 2
  echo "find_package, STATIC=$static: fine"
done
