-- The lines of earlier sessions: a file with an entry a line, in which a newline inside an entry is written \n.
local core = require "sluice.core"

local history = {}
history.__index = history

local KEPT, LONGEST = 1000, 65536 -- entries, and bytes of one; the file is shortened when it holds twice as many

local function encode(text)
  return (text:gsub("[\\\n\r]", { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r" }))
end

local function decode(line)
  return (line:gsub("\\(.)", { ["\\"] = "\\", n = "\n", r = "\r" }))
end

-- $SLUICE_HISTORY (nil if it is empty), else sluice/history in $XDG_STATE_HOME or ~/.local/state; nil where there is no home.
function history.path()
  local named = os.getenv "SLUICE_HISTORY"
  if named then return named ~= "" and named or nil end
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if state and state ~= "" then return state .. "/sluice/history" end
  return home and home ~= "" and home .. "/.local/state/sluice/history" or nil
end

-- The entries of a file's text, the oldest first; lines that are no text of ours are left out.
function history.entries(text)
  local list = {}
  for line in text:gmatch "([^\n]+)\n" do
    if #line <= 2 * LONGEST and not line:find "%z" then list[#list + 1] = decode(line) end
  end
  return list
end

-- The text of the newest entries, if there are so many that the file should be shortened.
function history.shortened(text)
  local list = history.entries(text)
  if #list <= 2 * KEPT and #text <= 4 * KEPT * 256 then return nil end
  local lines, bytes = {}, 0
  for i = #list, math.max(1, #list - KEPT + 1), -1 do
    bytes = bytes + #list[i]
    if bytes > 2 * KEPT * 256 then break end
    table.insert(lines, 1, encode(list[i]))
  end
  return #lines > 0 and table.concat(lines, "\n") .. "\n" or ""
end

-- Says once why lines are not kept; the prompt goes on.
local function give_up(self, why)
  io.stderr:write("sluice: history: ", tostring(why), "; this session's lines are not kept\n")
  self.file = nil
end

-- The history of a session; what earlier ones left is remembered for the arrow keys. path: nil for none
function history.open(console, path)
  local self = setmetatable({ console = console, file = path }, history)
  if not path then return self end
  local folder = path:match "^(.*)/[^/]*$"
  if folder and folder ~= "" then pcall(core.make_dirs, folder) end
  local text = ""
  local ok, why = console.history_replace(path, function(found)
    text = found
    return history.shortened(found)
  end)
  if not ok then give_up(self, why) end
  local list = history.entries(text)
  for i = math.max(1, #list - KEPT + 1), #list do console.remember(list[i]) end
  return self
end

-- Keeps an entry, of one line or several.
function history:add(text)
  if not text:find "%S" or text == self.last then return end
  self.last = text
  self.console.remember(text)
  if not self.file or #text > LONGEST then return end
  local ok, why = self.console.history_append(self.file, encode(text) .. "\n")
  if not ok then give_up(self, why) end
end

return history
