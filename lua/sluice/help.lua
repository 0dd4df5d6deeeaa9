-- sluice.help: the texts of the documentation comments (sluice.help_texts, made by the build), fit for a terminal.
local fields = require "sluice.fields"
local text_width = require "sluice.text_width"
local texts = require "sluice.help_texts"

local WIDTH = 80
local most = WIDTH -- a line is less wide; of what is written now

local help = {}

local width = text_width.of

local function fill(out, text, indent)
  local line = indent
  for word in text:gmatch "%S+" do
    if #line > #indent and width(line) + width(word) >= most then
      out[#out + 1] = line
      line = indent
    end
    line = #line > #indent and line .. " " .. word or line .. word
  end
  if #line > #indent then out[#out + 1] = line end
end

local function add_text(out, text)
  if text == "" then return end
  out[#out + 1] = ""
  for paragraph in (text .. "\n\n"):gmatch "(.-)\n\n" do fill(out, paragraph, "") end
end

-- Names with their types, each text beside them or below.
local function add_rows(out, rows, indent)
  for _, row in ipairs(rows) do
    local left = indent .. row[1] .. (row[1] ~= "" and "  " or "") .. row[2]
    local right = row[3] ~= "" and "  " .. row[3] or ""
    if width(left) + width(right) < most then
      out[#out + 1] = left .. right
    else
      out[#out + 1] = left
      fill(out, row[3], indent .. "    ")
    end
    if row.fields then add_rows(out, row.fields, indent .. "  ") end
    if row.of then out[#out + 1] = ("%s  the fields of %s"):format(indent, row.of) end
  end
end

local function add_part(out, title, rows)
  if not rows then return end
  out[#out + 1] = ""
  out[#out + 1] = title
  add_rows(out, rows, "  ")
end

local function text_of(e)
  local out = { e.call }
  if e.method then out[2] = "also " .. e.call:gsub("^sluice%.([%w_]+)%(([%w_]+),? ?", "%2:%1("):gsub(" %->.*", "") end
  add_text(out, e.text)
  local one = e.params and #e.params == 1 and e.params[1]
  if one and one.fields and not one.of and one[3] == "" then
    add_part(out, one[1]:match "%?$" and "fields of the table (which may be left out):" or "fields of the table:", one.fields)
  else
    add_part(out, "arguments:", e.params)
  end
  add_part(out, "fields:", e.fields)
  add_part(out, "returns:", e.returns)
  if e.example then
    out[#out + 1] = "\nexample:"
    for line in (e.example .. "\n"):gmatch "(.-)\n" do out[#out + 1] = "  " .. line end
  end
  return table.concat(out, "\n")
end

-- What a word may stand for: names as they are and without "sluice."; else methods and fields of that name ("item", "betas").
local function spellings()
  local map = {}
  for name in pairs(texts.entries) do
    local member = name:match "^%l[%w_]*[:.]([%w_]+)$"
    if not member or name:sub(1, 7) == "sluice." then member = name:match "^sluice%.%l[%w_]*%.([%w_]+)$" end
    if member then
      map[member] = map[member] or {}
      table.insert(map[member], name)
    end
  end
  for name in pairs(texts.entries) do
    map[name] = { name }
    map[name:gsub("^sluice%.", "")] = { name }
  end
  return map
end

local function index()
  local out = {}
  for _, area in ipairs(texts.areas) do
    out[#out + 1] = ("%s%s"):format(#out > 0 and "\n" or "", area.title)
    local names = {}
    for i, name in ipairs(area.names) do names[i] = name:gsub("^sluice%.", "") end
    fill(out, table.concat(names, ", "), "  ")
  end
  out[#out + 1] = "\nsluice.help \"randn\" tells more of one of them. There, names that end in ? may be"
  out[#out + 1] = "left out; their text then begins with what stands in their place."
  return table.concat(out, "\n")
end

local function bare(word)
  return (word:gsub("^sluice%.", ""):gsub("^t:", "tensor:"):gsub("%(%)?$", ""))
end

-- Whose option or field a word is, a line each; nil if it is none's.
local function option(word)
  local out = {}
  local function look(name, rows)
    for _, row in ipairs(rows or {}) do
      local field = row[1]:gsub("%?$", "")
      if field == word or field:match "[^.]*$" == word then
        out[#out + 1] = ("%s, field %s: %s"):format(name, row[1], row[2])
        if row[3] ~= "" then fill(out, row[3], "    ") end
      end
      look(name, row.fields)
    end
  end
  local names = fields.keys(texts.entries)
  for _, name in ipairs(names) do
    local e = texts.entries[name]
    if not e.op then
      for _, p in ipairs(e.params or {}) do look(name, p.fields) end
      look(name, e.fields)
    end
  end
  return #out > 0 and table.concat(out, "\n") or nil
end

-- The text of a name, however short, or of an option's name, in lines of at most `columns` (79) as far as words allow; nil where there
-- is none.
function help.find(name, columns)
  most = columns and math.min(columns + 1, WIDTH) or WIDTH
  local names = spellings()[bare(name)]
  if not names then return option(bare(name)) end
  table.sort(names)
  local out = {}
  for i, full in ipairs(names) do out[i] = text_of(texts.entries[full]) end
  return table.concat(out, "\n\n")
end

-- All names that there is help on, in no order.
function help.topics()
  local list = {}
  for name in pairs(spellings()) do list[#list + 1] = name end
  return list
end

-- The name that is nearest to a word, or nil.
function help.nearest(word)
  return fields.nearest(bare(word), fields.keys(spellings()))
end

--- sluice.help(name?) -> text
--- What a name is: its call, fields and results, and an example, as this page tells it. A name may be short: `"dit"`, `"io.load"`,
--- `"item"` (a method), `"tensor:item"`, `"softmax"` (an operation). Where there is no such name, the text begins with that and goes on
--- about the nearest one.
--- @param name? string  without it the text lists all names by area
--- @return string
--- @example
--- print(sluice.help "randn")
--- print(sluice.help "sotfmax":match "softmax")  --> softmax
function help.help(name)
  most = WIDTH
  if name == nil then return index() end
  if type(name) ~= "string" then error("sluice.help: expected a name, like \"softmax\" or \"io.load\"", 2) end
  local text = help.find(name)
  if text then return text end
  local near = help.nearest(name)
  if not near then return ("There is no %s; sluice.help() lists all names."):format(name) end
  return ("There is no %s. The nearest name:\n\n%s"):format(name, help.find(near))
end

return help
