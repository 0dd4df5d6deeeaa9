-- luarocks make --deps-mode none: builds with CMake and installs the module and the program into a tree of rocks.
-- The C libraries are the system's (scripts/packages lists Debian's names); the program's command line also needs argparse.
rockspec_format = "3.0"
package = "sluice"
version = "dev-1"
source = { url = "git+file://." }
description = {
  summary = "Diffusion models with Denoising Task Routing: training and sampling, in Lua on a C core",
  license = "MIT",
}
dependencies = { "lua >= 5.4, < 5.5", "argparse >= 0.7" }
build = {
  type = "command",
  build_command = "cmake -S . -B build/rock $(command -v ninja >/dev/null && echo -G Ninja) -D CMAKE_BUILD_TYPE=Release -D BUILD_TESTING=OFF"
    .. " && cmake --build build/rock --parallel --target sluice sluice_module",
  install = {
    lib = { sluice = "build/rock/sluice.so" },
    bin = { sluice = "build/rock/sluice" },
  },
}
