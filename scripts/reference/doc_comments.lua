-- Documentation comments in bindings/*.c (/*** … */) and lua/sluice/*.lua (lines that begin with ---), as entries:
--   name, kind ("function", "method", "field", "class", "table"), signature, text, file, line
--   params { {name, optional, type, text, fields} … } (fields.of: the entry whose fields are these fields too),
--   returns { {type, name, text, fields} … }, fields (of a class), example, setup (of a
--   class: Lua that makes the object its methods' examples use), raw (lines for the annotations as they are: operators, overloads)
local doc_comments = {}

local function trim(s)
  return (s:gsub("^%s+", ""):gsub("%s+$", ""))
end

-- Splits "type  text": the type may hold spaces inside brackets, and follows fun(…) with ": results".
local function split_type(s)
  local depth, at = 0, 1
  while at <= #s do
    local c = s:sub(at, at)
    if c:match "[%(%[{<]" then depth = depth + 1 end
    if c:match "[%)%]}>]" then depth = depth - 1 end
    if depth == 0 and c:match "%s" then
      local before, after = s:sub(1, at - 1), s:sub(at):match "^ (%S.*)"
      if not (after and (before:match "%):$" or before:match "[|,]$" or after:match "^|")) then break end
    end
    at = at + 1
  end
  return trim(s:sub(1, at - 1)), s:sub(at)
end

local function parameter(body, where)
  local name, rest = body:match "^(%S+)%s+(.*)$"
  if not name then error(("%s: expected a name and a type: %s"):format(where, body), 0) end
  local kind, text = split_type(rest)
  local optional = name:match "%?$" ~= nil
  return { name = name:gsub("%?$", ""), optional = optional, type = kind, text = trim(text), fields = {} }
end

local function result(body)
  local kind, rest = split_type(body)
  local name, text = rest:match "^%s([%a_][%w_]*%??)%s%s+(.*)$"
  if not name then name = rest:match "^%s([%a_][%w_]*%??)$" end
  if not name then text = rest end
  local optional = name and name:match "%?$" ~= nil
  return { type = kind, name = name and name:gsub("%?$", ""), optional = optional, text = trim(text or ""), fields = {} }
end

-- Lines without the indentation that all but the first have in common.
local function dedent(lines)
  local least
  for i = 2, #lines do
    local indent = lines[i]:match "%S" and #lines[i]:match "^%s*"
    if indent and (not least or indent < least) then least = indent end
  end
  for i = 2, #lines do lines[i] = lines[i]:sub((least or 0) + 1) end
  while lines[#lines] and not lines[#lines]:match "%S" do lines[#lines] = nil end
  lines[1] = trim(lines[1])
  if lines[1] == "" then table.remove(lines, 1) end
  return table.concat(lines, "\n")
end

local tags = {}

function tags.param(e, body, where)
  e.params[#e.params + 1] = parameter(body, where)
  e.last = e.params[#e.params].fields
end

function tags.field(e, body, where)
  e.last[#e.last + 1] = parameter(body, where)
end

tags["return"] = function(e, body)
  e.returns[#e.returns + 1] = result(body)
  e.last = e.returns[#e.returns].fields
end

-- The table above also takes the fields of another entry's table.
function tags.fields(e, body, where)
  if e.last == e.fields then error(("%s: @fields stands below no @param"):format(where), 0) end
  e.last.of = body
end

local function raw(tag)
  return function(e, body) e.raw[#e.raw + 1] = ("---@%s %s"):format(tag, body) end
end
tags.operator, tags.overload = raw "operator", raw "overload"

local function set(tag)
  return function(e, lines)
    if e[tag] then e[tag] = e[tag] .. "\n" .. dedent(lines) else e[tag] = dedent(lines) end
  end
end
local code_tags = { example = set "example", setup = set "setup" }

local function kind_of(line, where)
  local name, rest = line:match "^([%a_][%w_.]*%??):%s+(.+)$"
  if name then return "field", name, rest end
  name, rest = line:match "^([%a_][%w_.:]*)(.*)$"
  if not name or not name:match "[.:]" then
    error(("%s: expected a name like sluice.randn or tensor:item, got: %s"):format(where, line), 0)
  end
  if rest ~= "" then return name:find(":", 1, true) and "method" or "function", name end
  return name:match "%.%u%w*$" and "class" or "table", name
end

local function paragraphs(lines)
  local out, now = {}, {}
  for _, line in ipairs(lines) do
    line = trim(line)
    if line ~= "" then now[#now + 1] = line end
    if line == "" and #now > 0 then out[#out + 1], now = table.concat(now, " "), {} end
  end
  if #now > 0 then out[#out + 1] = table.concat(now, " ") end
  return table.concat(out, "\n\n")
end

-- An entry of the lines of one comment.
local function entry(lines, file, number)
  local where = ("%s:%d"):format(file, number)
  local first = trim(table.remove(lines, 1))
  local kind, name, rest = kind_of(first, where)
  local e = { kind = kind, name = name, signature = first, file = file, line = number, params = {}, returns = {}, fields = {}, raw = {} }
  e.last = e.fields
  if kind == "field" then
    e.name, e.optional, e.type, e.signature = name:gsub("%?$", ""), name:match "%?$" ~= nil, rest, nil
  end
  local text, tag, body = {}, nil, {}
  local function close()
    if not tag then return end
    local known = tags[tag] or code_tags[tag] or error(("%s: there is no tag @%s"):format(where, tag), 0)
    if code_tags[tag] then known(e, body) else known(e, trim(table.concat(body, " "):gsub("\n", " ")), where) end
  end
  for _, line in ipairs(lines) do
    local word, after = line:match "^%s*@(%l+)%s?(.*)$"
    if word then
      close()
      tag, body = word, { after }
    elseif tag then
      body[#body + 1] = code_tags[tag] and line or trim(line)
    else
      text[#text + 1] = line
    end
  end
  close()
  e.text, e.last = paragraphs(text), nil
  return e
end

local function lines_of(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = line end
  return list
end

local function from_c(path, out)
  local block, start
  for number, line in ipairs(lines_of(path)) do
    if not block then
      local after = line:match "^%s*/%*%*%*(.*)$"
      if after then block, start = {}, number end
      line = after
    end
    if block then
      local before = line:match "^(.-)%s*%*/"
      block[#block + 1] = before or line
      if before then
        out[#out + 1] = entry(block, path, start)
        block = nil
      end
    end
  end
end

-- Whether a comment with --- tells of a public name; what else begins so is an ordinary comment.
local function is_public(first)
  return first:match "^%s*sluice%.[%w_.]+" or first:match "^%s*%l[%w_]*:[%w_]+[%s%({]" or first:match "^%s*%l[%w_]*%.[%w_]+%??: "
end

local function from_lua(path, out)
  local block, start
  for number, line in ipairs(lines_of(path)) do
    local body = line:match "^%s*%-%-%-(.*)$"
    if body and body:sub(1, 1) == "-" then body = nil end
    if body then
      if not block then block, start = {}, number end
      block[#block + 1] = body:gsub("^ ", "")
    elseif block then
      if is_public(block[1]) then out[#out + 1] = entry(block, path, start) end
      block = nil
    end
  end
end

-- Of one file, or a list of them.
function doc_comments.read(paths)
  local out = {}
  for _, path in ipairs(paths) do
    if path:match "%.lua$" then from_lua(path, out) else from_c(path, out) end
  end
  local seen = {}
  for _, e in ipairs(out) do
    local other = seen[e.name]
    if other then error(("%s:%d: %s is documented at %s:%d already"):format(e.file, e.line, e.name, other.file, other.line), 0) end
    seen[e.name] = e
  end
  return out, seen
end

return doc_comments
