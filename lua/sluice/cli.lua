-- The program's commands beyond running Lua. Loaded only when one of them is called; each is a file of cli/ (see cli/arguments.lua).
local arguments = require "sluice.cli.arguments"
local fields = require "sluice.fields"

local cli = {}

-- In the order of the help: { name, what require takes }.
local COMMANDS = {
  { "train", "sluice.cli.train_command" },
  { "sweep", "sluice.cli.sweep_command" },
  { "sample", "sluice.cli.sample_command" },
  { "runs", "sluice.cli.runs_command" },
  { "export", "sluice.cli.export_command" },
  { "pack", "sluice.cli.pack_command" },
  { "inspect", "sluice.cli.inspect_command" },
  { "bench", "sluice.cli.bench_command" },
  { "doctor", "sluice.cli.doctor_command" },
  { "completion", "sluice.cli.completion_command" },
  { "man", "sluice.cli.man_command" },
  { "help", "sluice.cli.help_command" },
}

function cli.names()
  local names = {}
  for i, row in ipairs(COMMANDS) do names[i] = row[1] end
  return names
end

function cli.has(name)
  for _, row in ipairs(COMMANDS) do
    if row[1] == name then return true end
  end
  return false
end

local function unknown(name)
  if name == "run" then arguments.fail("run: which file? sluice run FILE [ARGS]") end
  local names = cli.names()
  names[#names + 1] = "run"
  table.sort(names)
  arguments.fail(("there is no command %s%s"):format(name, fields.hint(name, names)))
end

-- What a command's file returns; ends the program for a name that is none.
function cli.command(name)
  for _, row in ipairs(COMMANDS) do
    if row[1] == name then return (require(row[2])) end
  end
  unknown(name)
end

function cli.parser(name)
  return arguments.parser(name, cli.command(name))
end

-- argparse completes what has choices; the commands check theirs themselves, to name the nearest.
local function show_choices(p)
  for _, list in ipairs { p._options, p._arguments } do
    for _, element in ipairs(list) do
      if element.words then element:choices(element.words) end
    end
  end
end

-- One parser of all commands and of the program's own options, for manual and completion.
function cli.whole()
  local p = require "argparse"("sluice", "Trains and samples diffusion models.")
  p:option("-e", "runs CODE"):argname("CODE"):count("*")
  p:option("-l", "NAME = require NAME, or GLOBAL = require NAME"):argname("[GLOBAL=]NAME"):count("*")
  p:flag("-i", "a prompt after FILE or CODE")
  p:flag("-v --version", "tells the version")
  p:flag("-E", "heeds neither LUA_INIT nor LUA_PATH nor LUA_CPATH")
  p:flag("-W", "turns Lua's warnings on")
  for _, name in ipairs(cli.names()) do show_choices(arguments.parser(name, cli.command(name), p)) end
  local run = p:command("run", "Runs a Lua file, as `sluice FILE` does, whatever its name.")
  run:argument("file", "a Lua file; what follows are its arguments")
  return p
end

local function run(args)
  local command = cli.command(args[1])
  local rest = arguments.join_negative(table.move(args, 2, #args, 1, {}))
  command.run(arguments.parser(args[1], command):parse(rest))
end

-- args[1] is the command's name.
function cli.main(args)
  local ok, message = xpcall(run, require("sluice.faults").told, args)
  if not ok then arguments.fail(message, require("sluice.interrupt").is(message) and 130) end
end

return cli
