-- Annotations for the Lua language server (LuaCATS): one file of empty functions with types.
local doc_areas = require "doc_areas"

local doc_annotations = {}

local function comment(out, text)
  if text == "" then return end
  for line in (text .. "\n"):gmatch "(.-)\n" do out[#out + 1] = "--- " .. line end
end

local function one_line(text)
  return (text:gsub("%s+", " "))
end

local function field_line(f)
  return one_line(("---@field %s%s %s %s"):format(f.name, f.optional and not f.name:match "^%[" and "?" or "",
    f.optional and f.name:match "^%[" and f.type .. "?" or f.type, f.text)):gsub("%s+$", "")
end

-- Fields with dots in their names belong to tables inside: "every.sample" of sluice.X is `sample` of sluice.X.every.
local function add_class(out, name, fields, before, parent)
  local inner, order = {}, {}
  local lines = {}
  for _, f in ipairs(fields) do
    local outer, rest = f.name:match "^([%w_]+)%.(.+)$"
    if outer then
      if not inner[outer] then
        inner[outer], order[#order + 1] = {}, outer
      end
      table.insert(inner[outer], { name = rest, optional = f.optional, type = f.type, text = f.text })
    else
      lines[#lines + 1] = f
    end
  end
  for _, outer in ipairs(order) do add_class(out, ("%s.%s"):format(name, outer), inner[outer]) end
  comment(out, before or "")
  out[#out + 1] = "---@class " .. name .. (parent and ": " .. parent or "")
  for _, f in ipairs(lines) do
    if inner[f.name] then f = { name = f.name, optional = f.optional, type = ("%s.%s"):format(name, f.name), text = f.text } end
    out[#out + 1] = field_line(f)
  end
  if not before then out[#out + 1] = "" end
end

local function option_class(e, p, word)
  local base = e.name:gsub("^%l[%w_]*:", function(s) return s:sub(1, 1):upper() .. s:sub(2, -2) .. "." end)
  base = base:match "^sluice%." and base or "sluice." .. base
  return ("%s.%s"):format(base, word or p.name)
end

local function typed(e, p, out, word)
  if #p.fields == 0 and not p.fields.of then return p.type end
  local class = option_class(e, p, word)
  add_class(out, class, p.fields, nil, p.fields.of and p.fields.of .. ".Options")
  return (p.type:gsub("%f[%w]table%f[%W]", class))
end

local function add_function(out, e, call)
  local kinds, results = {}, {}
  for i, p in ipairs(e.params) do kinds[i] = typed(e, p, out, "Options") end
  for i, r in ipairs(e.returns) do results[i] = typed(e, r, out, "Result") end
  comment(out, e.text)
  if e.example then comment(out, "\n```lua\n" .. e.example .. "\n```") end
  local names = {}
  for i, p in ipairs(e.params) do
    out[#out + 1] = one_line(("---@param %s%s %s %s"):format(p.name, p.optional and "?" or "", kinds[i], p.text)):gsub("%s+$", "")
    names[i] = p.name
  end
  for i, r in ipairs(e.returns) do
    out[#out + 1] = one_line(("---@return %s%s %s"):format(results[i] .. (r.optional and "?" or ""), r.name and " " .. r.name or "",
      r.text ~= "" and "# " .. r.text or "")):gsub("%s+$", "")
  end
  for _, line in ipairs(e.raw) do out[#out + 1] = line end
  out[#out + 1] = ("function %s(%s) end\n"):format(call, table.concat(names, ", "))
end

local function copy_of(e, params)
  local copy = {}
  for k, v in pairs(e) do copy[k] = v end
  copy.params = params
  return copy
end

-- The form in which a last table names what else is given: fun(x, w, named: { act?: … }).
local function named_form(params, self, results)
  local first, named = { self and "self: sluice.Tensor" or nil }, {}
  for _, p in ipairs(params) do
    if p.type:match "^sluice%.Tensor" and not p.optional then
      first[#first + 1] = ("%s: %s"):format(p.name, p.type)
    else
      named[#named + 1] = ("%s%s: %s"):format(p.name, p.optional and "?" or "", p.type)
    end
  end
  if #named == 0 then return {} end
  first[#first + 1] = ("named: { %s }"):format(table.concat(named, ", "))
  return { ("---@overload fun(%s): %s"):format(table.concat(first, ", "), table.concat(results, ", ")) }
end

-- An operation: a function, and a method that sees its first input as itself.
local function add_operation(out, e)
  local params, results = {}, {}
  for i, p in ipairs(e.params) do
    local many = p.name == "..." and #e.params > 1 -- tensors in a list, since something may follow them
    params[i] = {
      name = many and "tensors" or p.name, optional = p.optional, type = many and "sluice.Tensor[]" or p.type,
      text = p.default and "default " .. p.default or p.text, fields = {},
    }
  end
  for i, r in ipairs(e.returns) do results[i] = r.type end
  local whole = copy_of(e, params)
  whole.raw = named_form(params, false, results)
  add_function(out, whole, e.name)
  if not e.method or e.params[1].name == "..." then return end
  local method = copy_of(e, table.move(params, 2, #params, 1, {}))
  method.raw = named_form(method.params, true, results)
  add_function(out, method, "Tensor:" .. e.name:match "%.(.*)$")
end

local HEAD = [[
---@meta sluice
-- Made by scripts/make-reference from the documentation comments; change those.

---@alias sluice.DType "f32"|"bf16"|"i32"|"i64"|"u8"|"f16"|"f64"|"bool"|"i8"|"i16"

---@class sluice
sluice = {}
]]

local function add_classes(out, entries)
  for _, e in ipairs(entries) do
    if e.kind == "class" then
      local fields = table.move(e.fields, 1, #e.fields, 1, {})
      for _, m in ipairs(doc_areas.members(entries, e.name)) do
        if m.kind == "field" then
          fields[#fields + 1] = { name = m.name:match "%.(.*)$", optional = m.optional, type = m.type, text = m.text }
        end
      end
      add_class(out, e.name, fields, e.text)
      for _, line in ipairs(e.raw) do out[#out + 1] = line end
      out[#out + 1] = ("local %s = {}\n"):format(e.name:match "%.(%u%w*)$")
    end
  end
end

-- The text of the file.
function doc_annotations.make(entries, operations)
  local out, class_of = { HEAD }, {}
  add_classes(out, entries)
  for _, e in ipairs(entries) do
    local object = e.kind == "class" and doc_areas.receiver(e.name) or e.kind == "method" and e.name:match "^(.-):"
    if object then class_of[object] = object:gsub("^%l", string.upper) end
    if e.kind == "class" then class_of[object] = e.name:match "%.(%u%w*)$" end
  end
  for _, e in ipairs(entries) do
    if e.kind == "table" then
      comment(out, e.text)
      out[#out + 1] = ("%s = {}\n"):format(e.name)
    elseif e.kind == "field" and e.name:match "^sluice%." then
      comment(out, e.text)
      out[#out + 1] = ("---@type %s\n%s = nil\n"):format(e.type, e.name)
    end
  end
  for _, e in ipairs(entries) do
    if e.kind == "function" then add_function(out, e, e.name) end
    if e.kind == "method" then
      local object, method = e.name:match "^(.-):(.*)$"
      add_function(out, e, ("%s:%s"):format(class_of[object], method))
    end
  end
  for _, e in ipairs(operations) do add_operation(out, e) end
  out[#out + 1] = "return sluice"
  return table.concat(out, "\n") .. "\n"
end

return doc_annotations
