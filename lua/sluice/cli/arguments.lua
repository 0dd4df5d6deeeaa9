-- What the commands' parsers share. A command is a file of this folder, NAME_command.lua, which returns
--   summary   a sentence
--   declare   function(p): its arguments and options, on an argparse parser
--   examples  lines of a shell
--   run       function(o): does it; o is what the parser read
-- and has a row in `commands` of lua/sluice/cli.lua. Help, completion and manual are made from the same declarations.
local core = require "sluice.core"
local disk = require "sluice.disk"
local fields = require "sluice.fields"
local sluice = require "sluice"

local arguments = {}

-- Ends the program in words.
function arguments.fail(message, status)
  io.stdout:flush()
  io.stderr:write("sluice: ", message, "\n")
  os.exit(status or 1, true)
end

local fail = arguments.fail

-- Writes a line to standard output; a full disk is an error.
function arguments.say(format, ...)
  local text = select("#", ...) > 0 and format:format(...) or format
  local ok, message = io.write(text, "\n")
  if ok then ok, message = io.stdout:flush() end
  if not ok then error("standard output: " .. message, 0) end
end

-- As JSON on one line; numbers that it does not have become text. empty: what an empty table is, "object" or "array"
function arguments.say_json(value, empty)
  arguments.say("%s", sluice.json.encode(disk.plain(value), empty))
end

-- --- parsers ---

-- argparse's words, with the nearest option.
local function usage_error(p, message)
  local unknown = message:match "^unknown option '(.-)'"
  if unknown then
    local names = {}
    for _, option in ipairs(p._options) do table.move(option._aliases, 1, #option._aliases, #names + 1, names) end
    local near = fields.nearest(unknown, names)
    message = ("unknown option %s%s"):format(unknown, near and ("; did you mean %s?"):format(near) or "")
  end
  local name = p:_get_fullname(true)
  name = name ~= "" and name or p._name:gsub("^sluice ", "")
  local usage = message:match "argument" and "\n" .. p:get_usage():gsub("^Usage", "usage") or "" -- one is missing, or too many
  fail(("%s: %s%s\n`sluice %s --help` tells more"):format(name, message, usage, name))
end

-- A value that is refused is told with the name of what it was given for.
local function name_values(p)
  for _, list in ipairs { p._options, p._arguments } do
    for _, element in ipairs(list) do
      local convert = element._convert
      if type(convert) == "function" then
        element:convert(function(text)
          local value, message = convert(text)
          if value == nil then return nil, ("%s %s: %s"):format(element._name, text, message) end
          return value
        end)
      end
    end
  end
end

-- A parser with what a command declares; parent: of all commands, for manual and completion.
function arguments.parser(name, command, parent)
  local p
  if parent then
    p = parent:command(name, command.summary)
  else
    local found, argparse = pcall(require, "argparse")
    if not found then fail("lua-argparse is not installed (apt-get install lua-argparse)") end
    p = argparse("sluice " .. name, command.summary)
  end
  p:usage_max_width(100)
  p:help_max_width(120)
  p:help_description_margin(28)
  p.error = usage_error
  command.declare(p)
  name_values(p)
  if command.examples then p:epilog("Examples:\n  " .. table.concat(command.examples, "\n  ")) end
  return p
end

-- argparse takes a negative number for an option: -n -3 becomes -n-3, --eta -1 becomes --eta=-1.
function arguments.join_negative(args)
  local out = {}
  for _, a in ipairs(args) do
    local before = out[#out]
    if before and a:match("^%-%.?%d") and before:match("^%-%-?[%a_]+$") then
      out[#out] = before .. (before:match("^%-%-") and "=" or "") .. a
    else
      out[#out + 1] = a
    end
  end
  return out
end

-- --- values: converters for argparse; of a value that is none they say what was expected ---

function arguments.integer(text)
  local n = math.tointeger(tonumber(text))
  if n then return n end
  return nil, "expected an integer"
end

function arguments.number(text)
  local n = tonumber(text)
  if n then return n end
  return nil, "expected a number"
end

function arguments.boolean(text)
  if text == "true" or text == "false" then return text == "true" end
  return nil, "expected true or false"
end

function arguments.interval(text)
  local lo, hi = text:match("^([%d.]+)[,:]([%d.]+)$")
  if tonumber(lo) and tonumber(hi) then return { tonumber(lo), tonumber(hi) } end
  return nil, "expected lo,hi"
end

-- An option that is one of some words; a wrong one is answered with the nearest.
function arguments.choice(option, words)
  local choices = {}
  for i, word in ipairs(words) do choices[i] = word end
  option:argname(table.concat(words, "|"))
  option:convert(function(text)
    for _, word in ipairs(choices) do
      if text == word then return text end
    end
    local near = fields.nearest(text, choices)
    return nil, near and ("did you mean %s?"):format(near) or ("expected %s"):format(table.concat(choices, " or "))
  end)
  option.words = choices -- for completion
  return option
end

local function threads(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 1 and n <= 1024 then return n end
  return nil, "expected 1 to 1024"
end

-- --set key=value …
function arguments.settings(list)
  local set = {}
  for _, text in ipairs(list or {}) do
    local key, value = text:match("^([%w_]+)=(.*)$")
    if not key then fail(('--set %s: expected key=value'):format(text)) end
    set[key] = value
  end
  return set
end

-- Refused before the work: a name or a folder that cannot be written to. what: "-o"; endings: of the names that serve, if not all do
function arguments.check_output(what, path, endings)
  local fits = not endings
  for _, ending in ipairs(endings or {}) do fits = fits or path:sub(-#ending) == ending end
  if not fits then fail(("%s %s: expected a name that ends in %s"):format(what, path, table.concat(endings, " or "))) end
  local folder = disk.folder_of(path)
  if not core.exists(folder) then fail(("%s %s: there is no folder %s"):format(what, path, folder)) end
  if core.exists(path .. "/.") then fail(("%s %s: that is a folder"):format(what, path)) end
  local obstacle = disk.obstacle(folder)
  if obstacle then fail(("%s %s: nothing can be written there: %s"):format(what, path, obstacle)) end
end

-- "1 image", "2 images"
function arguments.count(n, what)
  return ("%d %s%s"):format(n, what, n == 1 and "" or "s")
end

-- --- what several commands take ---

function arguments.machine_options(p)
  p:option("--device", "cpu, cuda, cuda:1, … (the first GPU, else cpu; SLUICE_DEVICE names another)"):argname("D")
  p:option("--threads", "compute threads"):argname("N"):convert(threads)
  p:option("--memory", "the most to take, as 500M or 24G"):argname("BYTES")
end

-- Where a checkpoint's blocks are written in Lua: no file is run unless it is named.
function arguments.recipe_option(p)
  p:option("--recipe", "the Lua file whose recipe makes the model, where its blocks are written in Lua"):argname("FILE")
end

function arguments.use_machine(o)
  if o.threads then sluice.set_threads(o.threads) end
  if o.memory then core.set_memory(o.memory) end
end

function arguments.json_flag(p)
  p:flag("--json", "tells its result as one JSON object")
end

return arguments
