-- A program in a terminal of its own, driven and looked at through tmux.
require "sluice"
local core = require "sluice.core"

local tmux = {}
tmux.__index = tmux

local open = {} -- terminals that were not closed yet

local LIMIT = 120 -- seconds to wait for a text: under sanitizers, beside other tests, much is slow

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  return pipe:close() and true or false, text
end

function tmux.is_there()
  return (run "command -v tmux")
end

-- o: columns, rows, env = { NAME = value }
function tmux.start(command, o)
  o = o or {}
  local self = setmetatable({ socket = os.tmpname() }, tmux)
  os.remove(self.socket)
  local env = { "env", "-u TMUX", "-u LD_PRELOAD" } -- the program brings its sanitizer, and tmux needs none
  for name, value in pairs(o.env or {}) do env[#env + 1] = quote(name .. "=" .. value) end
  self.call = ("%s tmux -S %s -f /dev/null -u "):format(table.concat(env, " "), self.socket)
  local ok, text = run(("%snew-session -d -x %d -y %d %s"):format(self.call, o.columns or 100, o.rows or 45, quote(command)))
  assert(ok, text)
  open[self] = true
  run(self.call .. "set-option -g history-limit 5000")
  return self
end

-- Types the text as it is, then the named keys.
function tmux:type(text, ...)
  if text ~= "" then assert(run(self.call .. "send-keys -l " .. quote(text))) end
  if ... then assert(run(self.call .. "send-keys " .. table.concat({ ... }, " "))) end
end

-- Pastes the text as a terminal does.
function tmux:paste(text)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(text)
  file:flush()
  assert(run(self.call .. "load-buffer " .. name))
  assert(run(self.call .. "paste-buffer"))
  os.remove(name)
end

-- What has been on the screen so far, without blank lines at the end.
function tmux:screen()
  local _, text = run(self.call .. "capture-pane -p -J -S -")
  return (text:gsub("[ \t]+\n", "\n"):gsub("\n+$", "\n"))
end

-- Whether there are colours on the screen.
function tmux:is_coloured()
  local _, text = run(self.call .. "capture-pane -p -e -S -")
  for numbers in text:gmatch "\27%[([%d;]*)m" do
    if numbers:find "^[349]%d" or numbers:find ";[349]%d" then return true end
  end
  return false
end

-- Waits until found(screen) gives a value, and returns it; what: for the error
local function until_found(self, found, what, level)
  local start = core.clock()
  while true do
    local text = self:screen()
    local value = found(text)
    if value then return value end
    if core.clock() - start > LIMIT then error(("there is no %s on the screen:\n%s"):format(what, text), level + 1) end
    os.execute "sleep 0.05"
  end
end

-- Waits until the screen matches; the whole of it.
function tmux:wait(pattern)
  return until_found(self, function(text) return text:find(pattern) and text end, pattern, 2)
end

-- Waits for the prompt that follows the line ending with `typed`; what is printed in between.
function tmux:prompt(typed)
  return until_found(self, function(text)
    local after = text:match(".*" .. typed:gsub("%p", "%%%0") .. "\n(.*)$")
    return after and ("\n" .. after):match "^\n(.*)\n> *\n$" or after and after:match "^> *\n$" and ""
  end, "prompt after " .. typed, 2)
end

-- Waits until the program has ended.
function tmux:ended()
  local start = core.clock()
  while run(self.call .. "has-session") do
    if core.clock() - start > LIMIT then error("it does not end; the screen:\n" .. self:screen(), 2) end
    os.execute "sleep 0.05"
  end
end

function tmux:close()
  run(self.call .. "kill-server")
  os.remove(self.socket)
  open[self] = nil
end

-- After a test, whatever became of it.
function tmux.close_all()
  for self in pairs(open) do self:close() end
end

return tmux
