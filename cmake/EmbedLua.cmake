# cmake -D ROOT=lua -D OUT=embedded_lua.c -P EmbedLua.cmake: writes each ROOT/**.lua as a byte array.
# lua/sluice/foo.lua becomes the module "sluice.foo", lua/sluice/foo/init.lua "sluice.foo" too.
file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/sluice/*.lua)
list(SORT files)
set(arrays "")
set(rows "")
set(index 0)
foreach(file IN LISTS files)
  file(READ ${ROOT}/${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "\\.lua$" "" name ${file})
  string(REGEX REPLACE "/init$" "" name ${name})
  string(REPLACE "/" "." name ${name})
  # The closing 0 is not counted: it keeps an empty file from becoming an empty array
  string(APPEND arrays "static const unsigned char lua_${index}[] = {\n${bytes}\n0};\n")
  string(APPEND rows "  {\"${name}\", lua_${index}, sizeof lua_${index} - 1},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUT} "/* Made by cmake/EmbedLua.cmake. */\n#include \"embedded_lua.h\"\n\n${arrays}\n"
  "const struct sl_embedded_lua sl_embedded_lua[] = {\n${rows}  {0, 0, 0},\n};\n")
