-- What a user is told of an error: the message and the user's own places, without those inside Lua's C functions and Sluice.
local faults = {}

-- The prompt's inputs by chunk name ("input 3"), and the name of the one that runs.
faults.inputs, faults.current = {}, nil

-- What was typed, up to now; nil away from the prompt.
function faults.typed()
  if not faults.current then return nil end
  local list = {}
  for n = 1, tonumber(faults.current:match "%d+") do
    local text = faults.inputs["input " .. n]
    if text then list[#list + 1] = ("-- input %d\n%s\n"):format(n, text) end
  end
  return table.concat(list)
end

function faults.at_prompt()
  return faults.current ~= nil
end

local FIRST, DEEPEST = 12, 200 -- frames that are told, and looked at: a runaway recursion has hundreds of thousands

local function is_own(short_src)
  return short_src:match "^%[sluice[%.%]]" ~= nil
end

-- The frames of the user's functions, the innermost first, and whether there may be more.
local function user_frames()
  local list = {}
  for level = 2, DEEPEST do
    local f = debug.getinfo(level, "Sln")
    if not f then return list, false end
    if f.what ~= "C" and f.currentline > 0 and not is_own(f.short_src) then list[#list + 1] = f end
  end
  return list, true
end

-- The error that a function called by the core ended in, held weakly, and its frames: it goes on from there without its stack.
local noted = { error = setmetatable({}, { __mode = "v" }), frames = nil, more = false }

-- The frames that were noted for this error, if those it has now, the outer ones, are among them: texts may be the same by chance.
local function noted_frames(message, frames)
  local inner = noted.frames
  if message == nil or not inner or not rawequal(noted.error[1], message) then return nil end
  local before = #inner - #frames
  for i = noted.more and 0 or #frames, 1, -1 do
    local a, b = inner[before + i], frames[i]
    if not a or a.short_src ~= b.short_src or a.currentline ~= b.currentline then return nil end
  end
  return inner, noted.more
end

-- Takes down where an error is that will be caught and raised again; a message handler calls it. Of two calls the inner one counts.
function faults.note(message)
  local frames, more = user_frames()
  if noted_frames(message, frames) then return end
  noted.error[1], noted.frames, noted.more = message, frames, more
end

local function name_of(f)
  if f.what == "main" then return "main chunk" end
  if f.name then return ("function '%s'"):format(f.name) end
  return ("function <%s:%d>"):format(f.short_src, f.linedefined)
end

-- A value that was raised, as text.
local function text_of(message)
  if type(message) == "string" then return message end
  local meta = debug.getmetatable(message)
  if type(meta) == "table" and rawget(meta, "__tostring") then
    local ok, text = pcall(tostring, message)
    if ok then return text end
  elseif type(message) == "table" then
    return "(error object) " .. require("sluice.repl.inspect").text(message)
  end
  return ("(error object is a %s value)"):format(type(message))
end

-- The line of an input that "input 3:2: …" speaks of, where more can be seen from it than the user has just typed.
local function quoted(chunk, line)
  local text = faults.inputs[chunk]
  if not text then return nil end
  local n = 0
  for row in (text .. "\n"):gmatch "([^\n]*)\n" do
    n = n + 1
    if n == line then return ("%5d | %s"):format(line, #row > 200 and row:sub(1, 200) .. " …" or row) end
  end
end

-- The message without places in Sluice's own files, and with the user's place if that was all it had.
local function clean(text, frames)
  local bare, inside = text:gsub("%[sluice[%w._]*%]:%d+: ", "")
  if bare:match "^interrupted$" or bare:match "^[^\n]-:%d+: interrupted$" then return "interrupted" end
  if inside > 0 and text:match "^%[sluice" and frames[1] then
    return ("%s:%d: %s"):format(frames[1].short_src, frames[1].currentline, bare)
  end
  return bare
end

-- At the prompt: no place for what was typed in one line just now; else the line that it means.
local function placed(text)
  local chunk, line, rest = text:match "^(input %d+):(%d+): (.*)$"
  if not chunk or not faults.inputs[chunk] then return text end
  if chunk == faults.current and not faults.inputs[chunk]:find "\n" then return rest end
  local row = quoted(chunk, tonumber(line))
  return row and text .. "\n" .. row or text
end

-- The message with locals of the prompt called so: for Lua they are fields of an environment.
local function with_locals(text)
  local is = require("sluice.repl.locals").is
  return (text:gsub("%(global '([^']+)'%)", function(name) return is(name) and ("(local '%s')"):format(name) or nil end))
end

-- "; did you mean …?" for a name that is nil.
local function hint(text)
  local kind, name = text:match "attempt to %a+ a nil value %((%a+) '([^']+)'%)"
  if not kind then return "" end
  local chunk, line = text:match "^(input %d+):(%d+): "
  local near = require("sluice.repl.names").nearest(kind, name, faults.inputs[chunk], tonumber(line))
  return near and ('; did you mean "%s"?'):format(near) or ""
end

-- The frames that say more than the message: all but its own, and at the prompt but the input itself.
local function traceback(frames, more)
  local lines, last = {}, nil
  if #frames > FIRST then frames, more = table.move(frames, 1, FIRST, 1, {}), true end
  for i, f in ipairs(frames) do
    local line = ("\t%s:%d: in %s"):format(f.short_src, f.currentline, name_of(f))
    if f.short_src == faults.current and f.what == "main" then
      if i == 1 then return "" end
      more = false -- below it is the prompt
      break
    elseif line ~= last then
      lines[#lines + 1], last = line, line
    elseif lines[#lines] == last then
      lines[#lines + 1] = "\t… (the same again)"
    end
  end
  if more then lines[#lines + 1] = "\t…" end
  return #lines > 1 and "\nstack traceback:\n" .. table.concat(lines, "\n") or ""
end

-- The text of an error for a user. A message handler: it looks at the stack of the error.
function faults.told(message)
  local frames, more = user_frames()
  local inner, more_inside = noted_frames(message, frames)
  if inner then frames, more = inner, more_inside end
  noted.frames = nil
  local text = clean(text_of(message), frames)
  if text == "interrupted" then return text end
  if not faults.current then return text .. traceback(frames, more) end
  local first, rest = text:match "^([^\n]*)(.*)$"
  first = with_locals(first)
  return placed(first .. hint(first)) .. rest .. traceback(frames, more)
end

-- The same for a message that has no stack: of a chunk that did not compile.
function faults.refused(message)
  return placed(clean(text_of(message), {}))
end

return faults
