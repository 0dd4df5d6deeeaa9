-- Values as the prompt prints them: tables a few levels deep, keys sorted, of bounded length; nothing of a user's code runs but
-- __tostring.
local fields = require "sluice.fields"
local sluice = require "sluice"

local table, math, debug = table, math, debug -- kept: see repl/locals.lua

local inspect = {}

local LIST, KEYS, SORTED = 12, 40, 2000 -- entries shown of a list, of other keys; keys that are sorted at all
local DEPTH, WIDTH, STRING = 2, 100, 80

-- At most n bytes of a text, and whole characters.
local function cut(text, n)
  if #text <= n then return text end
  while n > 0 and text:byte(n + 1) >= 0x80 and text:byte(n + 1) < 0xc0 do n = n - 1 end
  return text:sub(1, n)
end

local function quoted(text)
  local part = ("%q"):format(cut(text, STRING)):gsub("\\\n", "\\n")
  return #text > STRING and ("%s … (%d bytes)"):format(part, #text) or part
end

local function has(v, event)
  local meta = debug.getmetatable(v)
  return type(meta) == "table" and rawget(meta, event) or nil
end

-- tostring, whatever __tostring does.
function inspect.string_of(v)
  local ok, text = pcall(tostring, v)
  if ok then return text end
  return ("%s (its __tostring failed: %s)"):format(type(v), type(text) == "string" and text or type(text))
end

-- A tensor inside a table: what it is, not its numbers.
local function short_tensor(t)
  local ok, text = pcall(function() return "tensor " .. fields.what(t) end)
  return ok and text or (inspect.string_of(t):match "^[^\n]*")
end

local function scalar(v)
  local kind = type(v)
  if kind == "string" then return quoted(v) end
  if kind == "function" then return "function" end
  if kind == "userdata" and sluice.is_tensor(v) then return short_tensor(v) end
  if kind ~= "userdata" then return inspect.string_of(v) end
  local name = has(v, "__name")
  local text = has(v, "__tostring") and inspect.string_of(v):match "^[^\n]*" or type(name) == "string" and name or "userdata"
  return #text > WIDTH and cut(text, WIDTH) .. " …" or text
end

local ORDER = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local x, y = ORDER[type(a)] or 4, ORDER[type(b)] or 4
  if x ~= y then return x < y end
  if x < 3 then return a < b end
  return inspect.string_of(a) < inspect.string_of(b)
end

-- The keys outside the list 1 … n, sorted as far as they are shown, and how many there are.
local function other_keys(t, n)
  local keys, count = {}, 0
  for k in next, t do
    if math.type(k) ~= "integer" or k < 1 or k > n then
      count = count + 1
      if count <= SORTED then keys[count] = k end
    end
  end
  table.sort(keys, before)
  return keys, count
end

local function key_text(k)
  if type(k) == "string" and k:match "^[%a_][%w_]*$" then return k end
  return "[" .. scalar(k) .. "]"
end

local render

-- A few numbers, as a shape or an interval: shown at any depth.
local function is_short_list(t)
  for k, v in next, t do
    if math.type(k) ~= "integer" or k < 1 or k > 6 or type(v) ~= "number" then return false end
  end
  return true
end

local function items_of(t, state, depth)
  local items, n = {}, rawlen(t)
  for i = 1, math.min(n, LIST) do items[i] = render(rawget(t, i), state, depth) end
  if n > LIST then items[#items + 1] = ("… (%d in all)"):format(n) end
  local keys, count = other_keys(t, n)
  for i = 1, math.min(count, KEYS) do
    items[#items + 1] = key_text(keys[i]) .. " = " .. render(rawget(t, keys[i]), state, depth)
  end
  if count > KEYS then items[#items + 1] = ("… (%d keys in all)"):format(count) end
  return items
end

local function joined(items, depth)
  local one = table.concat(items, ", ")
  if #one + 2 * depth <= WIDTH and not one:find "\n" then return "{ " .. one .. " }" end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(items, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

function render(v, state, depth)
  if type(v) ~= "table" then return scalar(v) end
  if depth > 0 and has(v, "__tostring") then return (inspect.string_of(v):match "^[^\n]*") end
  if state[v] then return "{ the table itself, again }" end
  if next(v) == nil then return "{}" end
  if depth >= DEPTH and not is_short_list(v) then return "{ … }" end
  state[v] = true
  local text = joined(items_of(v, state, depth + 1), depth)
  state[v] = nil
  local name = has(v, "__name")
  return (type(name) == "string" and name .. " " or "") .. text
end

-- The text of a value: strings as they are, tables opened, all else as tostring has it.
function inspect.text(v)
  if type(v) == "table" and not has(v, "__tostring") then return render(v, {}, 0) end
  return inspect.string_of(v)
end

-- Several values as print shows them, one below the other where one has several lines.
function inspect.line(...)
  local parts, rows = {}, false
  for i = 1, select("#", ...) do
    parts[i] = inspect.text((select(i, ...)))
    rows = rows or parts[i]:find "\n" ~= nil
  end
  return table.concat(parts, rows and "\n" or "\t")
end

return inspect
