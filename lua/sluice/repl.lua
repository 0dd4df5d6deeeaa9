-- The prompt of the program: reads statements, runs them, prints what they give. The console (bindings/program_prompt.c) reads lines
-- and makes protected calls that Ctrl-C stops.
local core = require "sluice.core"
local faults = require "sluice.faults"
local inspect = require "sluice.repl.inspect"
local locals = require "sluice.repl.locals"
local text_width = require "sluice.text_width"

--- sluice.repl
--- Settings of the prompt, read while it runs.

--- sluice.repl.live: boolean
--- Whether sluice.sample shows its progress and its pictures there; true.
--- @example sluice.repl.live = false
local repl = { settings = { live = true } }

local pack, unpack = table.pack, table.unpack -- kept: see repl/locals.lua

local INPUTS = 500 -- texts that errors can quote

local function prompt_of(name, default)
  local text = rawget(_G, name)
  return text ~= nil and inspect.string_of(text) or default
end

-- --- statements ---

local Session = {}
Session.__index = Session

-- The chunk that a text is: an expression, its values wanted, or statements. nil, message, whether more lines could make it one,
-- where it is neither.
local function compile(text, chunk)
  if text:find "^\27" then -- Lua would speak of a binary chunk
    return nil, chunk .. ":1: it begins with an Escape character, as arrow keys send where a terminal has no line editing", nil
  end
  local shown = text:match "^%s*=(.*)$"
  local f, message = load("return " .. (shown or text), "=" .. chunk, "t", locals.env)
  if f then return f end
  if message:match "<eof>$" or shown then return nil, message, message:match "<eof>$" end
  f, message = locals.load(text, "=" .. chunk)
  return f, message, message and message:match "<eof>$"
end

-- Reads a whole statement: its chunk (or nil and what is wrong with it) and its text; nil, nil, "end" or "interrupted".
function Session:read()
  local text, why = self.console.line(prompt_of("_PROMPT", "> "))
  if not text then return nil, nil, why end
  while true do
    self.before = text .. "\n"
    local f, message, unfinished = compile(text, self.chunk)
    if not unfinished then
      self.before = ""
      return f, message, text
    end
    local more, ended = self.console.line(prompt_of("_PROMPT2", ">> "))
    if not more then
      self.before = ""
      if ended == "interrupted" then return nil, nil, ended end
      return nil, message, text
    end
    text = text .. "\n" .. more
  end
end

local function tell(text)
  io.stdout:flush()
  io.stderr:write(text, "\n")
  io.stderr:flush()
end

local function print_values(...)
  io.write(inspect.line(...), "\n")
  io.flush()
end

-- Keeps the first value as _ and prints all of them.
function Session:show(ok, ...)
  local cleared = require("sluice.repl.live").finish()
  if not ok then
    local below_key = (...) == "interrupted" and self.console.edited and not cleared -- the terminal shows ^C in this line
    return tell((below_key and "\n" or "") .. (...))
  end
  if select("#", ...) == 0 then return end
  if (...) ~= nil then rawset(_G, "_", (...)) end
  local fine, message = self.console.call(print_values, ...)
  if not fine then tell(message) end
end

function Session:run(f, message, text)
  faults.inputs[self.chunk], faults.current = text, self.chunk
  faults.inputs[("input %d"):format(self.number - INPUTS)] = nil
  if f then
    local results = pack(self.console.call(f))
    locals.ran(f)
    self:show(unpack(results, 1, results.n))
  else
    tell(faults.refused(message))
  end
end

-- `exit` and `quit`, where they are no variables, mean what they say.
local function leaves(text)
  local word = text:match "^%s*(%a+)%s*$" or text:match "^%s*(%a+)%s*%(%s*%)%s*$"
  return (word == "exit" or word == "quit") and locals.get(word) == nil
end

function Session:loop()
  while true do
    self.number = self.number + 1
    self.chunk = ("input %d"):format(self.number)
    local f, message, text = self:read()
    if not f and not message then
      if text == "end" then return end
    elseif text:find "%S" then
      self.history:add(text)
      if leaves(text) then return true end
      self:run(f, message, text)
    end
  end
end

-- --- the start ---

-- $SLUICE_INIT (nil if it is empty), else sluice/init.lua in $XDG_CONFIG_HOME or ~/.config, if there is one.
function repl.init_file()
  local named = os.getenv "SLUICE_INIT"
  if named then return named ~= "" and named or nil end
  local config, home = os.getenv "XDG_CONFIG_HOME", os.getenv "HOME"
  local folder = config and config ~= "" and config or home and home ~= "" and home .. "/.config"
  local path = folder and folder .. "/sluice/init.lua"
  return path and core.exists(path) and path or nil
end

-- Runs the start-up file; an error in it is told and no more.
local function run_init(console)
  if debug.getregistry().LUA_NOENV then return end
  local path = repl.init_file()
  if not path then return end
  local f, message = loadfile(path)
  local ok = f ~= nil
  if f then ok, message = console.call(f) end
  if not ok then tell("sluice: " .. tostring(message)) end
end

local function open_history(console)
  local history = require "sluice.repl.history"
  return history.open(console, console.edited and history.path() or nil)
end

local function complete_in(session)
  return function(text, columns)
    return require("sluice.repl.complete").key(session.before .. text, columns)
  end
end

-- Runs the prompt on a console until the end of its input.
function repl.run(console)
  local session = setmetatable({ console = console, number = 0, before = "" }, Session)
  require("sluice.repl.tools").install(_G)
  console.open(complete_in(session))
  session.history = open_history(console)
  if console.edited then
    require("sluice.sample").observer = require("sluice.repl.live").observer(repl.settings)
    local _, columns = core.terminal()
    io.write(text_width.wrapped("help() is a short tour, Tab completes, Ctrl-D leaves.", columns and columns - 1), "\n")
  end
  run_init(console)
  faults.current = "input 0"
  if not session:loop() then io.write "\n" end
  faults.current = nil
end

return repl
