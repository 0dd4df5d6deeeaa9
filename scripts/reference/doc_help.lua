-- The Lua module of help texts, sluice.help_texts, that lua/sluice/help.lua shows: a list of areas and the entries by name.
local doc_areas = require "doc_areas"

local doc_help = {}

local function literal(v, indent)
  if type(v) ~= "table" then return type(v) == "string" and ("%q"):format(v):gsub("\\\n", "\\n") or tostring(v) end
  local lines, keys = {}, {}
  for i = 1, #v do lines[i] = literal(v[i], indent .. " ") end
  for k in pairs(v) do
    if type(k) == "string" then keys[#keys + 1] = k end
  end
  table.sort(keys)
  for _, k in ipairs(keys) do lines[#lines + 1] = ("[%q]=%s"):format(k, literal(v[k], indent .. " ")) end
  return "{" .. table.concat(lines, ",\n" .. indent) .. "}"
end

local function rows(list)
  if #list == 0 then return nil end
  local out = {}
  for i, p in ipairs(list) do
    out[i] = { p.optional and p.name .. "?" or p.name, p.type, p.text ~= "" and p.text or p.default and "default " .. p.default or "",
      fields = rows(p.fields), of = p.fields.of }
  end
  return out
end

-- Of an operation only what has a default or is no tensor: the text tells of the others.
local function told(e)
  local list = {}
  for _, p in ipairs(e.params) do
    if not e.op or not p.type:match "^sluice%.Tensor" then list[#list + 1] = p end
  end
  return rows(list)
end

local function packed(e, setup)
  local example = e.example
  if example and setup then example = setup .. "\n" .. example end
  local returns, first = rows(e.returns), e.returns[1]
  for i, r in ipairs(returns or {}) do r[1] = e.returns[i].name or "" end
  if first and #e.returns == 1 and not first.name and first.text == "" and #first.fields == 0 then returns = nil end
  return {
    call = e.signature or ("%s: %s"):format(e.name, e.type), text = e.text, params = told(e), fields = rows(e.fields),
    returns = not e.op and returns or nil, example = example, op = e.op, method = e.method or nil,
  }
end

-- The module's text.
function doc_help.make(entries, operations)
  local all, pages, setups = {}, {}, {}
  for _, e in ipairs(entries) do
    if e.kind == "class" then setups[doc_areas.receiver(e.name)] = e.setup end
  end
  for _, e in ipairs(entries) do all[e.name] = packed(e, setups[e.name:match "^(%l[%w_]*):"]) end
  for _, e in ipairs(operations) do all[e.name] = packed(e) end
  for i, page in ipairs(doc_areas.collect(entries, operations)) do
    local names = {}
    for _, section in ipairs(page.sections) do
      for _, e in ipairs(section.entries) do names[#names + 1] = e.name end
      for _, e in ipairs(section.operations or {}) do names[#names + 1] = e.name end
    end
    pages[i] = { title = page.title, names = names }
  end
  local text = literal({ areas = pages, entries = all }, " ")
  return ("-- Made by scripts/make-reference from the documentation comments.\nreturn %s\n"):format(text)
end

return doc_help
