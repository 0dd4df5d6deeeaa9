-- What names there are: of globals, tables, Sluice's own classes and option tables. Nothing of a user's code runs: tables are read
-- raw, and the only values that are asked for a field are Sluice's own.
local core = require "sluice.core"
local fields = require "sluice.fields"
local locals = require "sluice.repl.locals"
local sluice = require "sluice"
local texts = require "sluice.help_texts"
local tokens = require "sluice.repl.tokens"

local names = {}

local function metatable(v)
  local meta = debug.getmetatable(v)
  return type(meta) == "table" and meta or nil
end

-- The lazily loaded parts of sluice, as a set.
local lazy = {}
for _, name in ipairs(core.lazy_names()) do lazy[name] = true end

-- "tensor", "model" … of a value of one of Sluice's classes; nil for any other.
function names.class(v)
  local meta = metatable(v)
  local name = meta and rawget(meta, "__name")
  if type(name) ~= "string" or not name:match "^sluice%." then return nil end
  if type(v) == "userdata" and not rawequal(debug.getregistry()[name], meta) then return nil end
  return name:match "^sluice%.(.*)"
end

-- The table that __index stands for: itself, or what a class of Sluice's keeps behind its function.
local function behind(v)
  local meta = metatable(v)
  local index = meta and rawget(meta, "__index")
  if type(index) == "table" then return index end
  if type(index) ~= "function" or not names.class(v) then return nil end
  local methods = rawget(meta, "methods")
  if type(methods) == "table" then return methods end
  local _, upvalue = debug.getupvalue(index, 1)
  return type(upvalue) == "table" and upvalue or nil
end

-- Names of documented fields: { name, type, text } rows, with those of the entry `of`. Positions, and fields of tables inside, are left
-- out.
local function add_fields(list, rows)
  if not rows then return list end
  for _, row in ipairs(rows) do
    local name = row[1]:gsub("%?$", "")
    if name:match "^[%a_][%w_]*$" then list[#list + 1] = name end
  end
  return list
end

local documented -- by class, in small letters: the fields of its values

-- Fields of a value of one of Sluice's classes, as its documentation lists them.
local function own_fields(v)
  local class = names.class(v)
  if not class then return {} end
  if not documented then
    documented = {}
    for name, entry in pairs(texts.entries) do
      local of, field = name:match "^(%l[%w_]*)%.([%w_]+)$"
      if of and of ~= "sluice" then
        documented[of] = documented[of] or {}
        table.insert(documented[of], field)
      end
      of = name:match "^sluice%.(%u[%w_]*)$"
      if of then documented[of:lower()] = add_fields(documented[of:lower()] or {}, entry.fields) end
    end
  end
  return documented[class:lower()] or {}
end

-- The value of v.key without calling anything of the user's; nil where that cannot be.
function names.get(v, key)
  if rawequal(v, sluice) and lazy[key] then return sluice[key] end
  for _ = 1, 10 do
    if type(v) == "table" then
      local found = rawget(v, key)
      if found ~= nil then return found end
    elseif type(v) == "userdata" then
      for _, name in ipairs(own_fields(v)) do
        if name == key then
          local ok, found = pcall(function() return v[key] end)
          return ok and found or nil
        end
      end
    end
    v = behind(v)
    if v == nil then return nil end
  end
end

local function is_callable(v)
  if type(v) == "function" then return true end
  local meta = metatable(v)
  return meta ~= nil and rawget(meta, "__call") ~= nil
end

-- The names that may stand after `v.`, or with `methods` after `v:`; in no order.
function names.members(v, methods)
  local set = {}
  local function add(name, value)
    if type(name) == "string" and name:match "^[%a_][%w_]*$" and (not methods or is_callable(value)) then set[name] = true end
  end
  if rawequal(v, sluice) then
    for name in pairs(lazy) do add(name, sluice.ones) end
  end
  if not methods then
    for _, name in ipairs(own_fields(v)) do set[name] = true end
  end
  if rawequal(v, sluice.routing) then -- the part of it that is loaded when it is used
    for name, value in pairs(require "sluice.routing") do add(name, value) end
  end
  for _ = 1, 10 do
    if type(v) == "table" then
      for name, value in next, v do add(name, value) end
    end
    v = behind(v)
    if v == nil then break end
  end
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  return list
end

-- The value of a variable of the prompt, read as names.get reads a field.
function names.variable(name)
  if locals.is(name) then return locals.get(name) end
  return names.get(_G, name)
end

-- The names of the prompt's variables, its locals and globals; in no order.
function names.variables()
  local list = names.members(_G)
  for name in next, locals.names() do list[#list + 1] = name end
  return list
end

-- Of tokens: the value of the plain chain of names that ends at position i (a.b.c, a.b[1].c, "text"), and if it ends in `:name`, the value
-- before and the method's name. nil, nil where it cannot be told without running anything.
function names.chain(list, i)
  local parts = {}
  while true do
    local t = list[i]
    if not t then return nil end
    if t.text == "]" and list[i - 2] and list[i - 2].text == "[" and list[i - 1].kind ~= "name" and list[i - 3] then
      local key = list[i - 1]
      table.insert(parts, 1, key.kind == "number" and (math.tointeger(tonumber(key.text)) or tonumber(key.text))
        or key.text:match "^[\"'](.*)[\"']$")
      i = i - 3
    elseif t.kind == "name" then
      local before = list[i - 1]
      if not before or (before.text ~= "." and before.text ~= ":") then
        table.insert(parts, 1, t.text)
        break
      end
      table.insert(parts, 1, before.text == ":" and { t.text } or t.text)
      i = i - 2
    else
      local inner = t.text == ")" and list[i - 2] and list[i - 2].text == "(" and list[i - 1] or t -- ("text"):
      return inner.kind == "string" and "" or nil
    end
  end
  local v
  for k, key in ipairs(parts) do
    if type(key) == "table" then return k == #parts and v or nil, key[1] end
    if key == nil then return nil end
    if k == 1 then v = names.variable(key) else v = names.get(v, key) end
    if v == nil then return nil end
  end
  return v
end

-- --- option tables ---

local function by_path(path)
  local v = sluice
  for name in path:gsub("^sluice%.", ""):gmatch "[%w_]+" do
    if type(v) ~= "table" then return nil end
    v = names.get(v, name)
  end
  return v
end

local function fields_of_call(entry, list)
  for _, p in ipairs(entry and entry.params or {}) do
    add_fields(list, p.fields)
    if p.of then fields_of_call(texts.entries[p.of], list) end
  end
  return list
end

-- The fields of what a recipe's function returns: "recipe", or of a table inside, "recipe.train".
local function of_recipe(inside)
  local list, prefix = {}, inside and inside .. "." or ""
  for _, row in ipairs(texts.entries["sluice.Description"].fields) do
    local name = row[1]:gsub("%?$", "")
    local rest = name:sub(1, #prefix) == prefix and name:sub(#prefix + 1)
    if rest and rest:match "^[%w_]+$" then list[#list + 1] = rest end
  end
  return list
end

-- The option names known as `what` ("sluice.dit", "model:forward", "recipe.train"), as their documentation has them (a test holds it to
-- what calls accept); nil if there are none.
function names.options(what)
  local list = what:match "^recipe" and of_recipe(what:match "^recipe%.(.*)") or fields_of_call(texts.entries[what], {})
  return #list > 0 and list or nil
end

local function row_in(rows, key)
  for _, row in ipairs(rows or {}) do
    if row[1]:gsub("%?$", "") == key then return row end
  end
end

local function row_of_call(entry, key)
  for _, p in ipairs(entry and entry.params or {}) do
    local row = row_in(p.fields, key) or (p.of and row_of_call(texts.entries[p.of], key))
    if row then return row end
  end
end

-- The words that an option may be, of the options known as `what`; nil if it has none.
function names.choices(what, key)
  local row
  if what:match "^recipe" then
    local inside = what:match "^recipe%.(.*)"
    row = row_in(texts.entries["sluice.Description"].fields, inside and inside .. "." .. key or key)
  else
    row = row_of_call(texts.entries[what], key)
  end
  local list = {}
  for word in (row and row[2] or ""):gmatch '"([^"]+)"' do list[#list + 1] = word end
  return #list > 0 and list or nil
end

local function of_operation(f)
  for _, name in ipairs(core.signature()) do
    if rawequal(rawget(sluice, name), f) then
      local list = {}
      for word in core.signature(name):match("%((.*)%)"):gmatch "([%a_][%w_]*)[^,]*,?%s*" do list[#list + 1] = word end
      return list
    end
  end
end

-- What the option table of a function is known as, and its names; nil if it is none of Sluice's.
function names.options_of(f)
  for what, entry in pairs(texts.entries) do
    if not entry.op and what:match "^sluice%.[%l_.%d]+$" and rawequal(by_path(what), f) then return what, names.options(what) end
  end
  return nil, of_operation(f)
end

-- The methods of each class of userdata: { tensor = { item = function … } … }
function names.classes()
  local all = {}
  for name, meta in pairs(debug.getregistry()) do
    local class = type(name) == "string" and type(meta) == "table" and name:match "^sluice%.(%a+)$"
    local index = class and (rawget(meta, "methods") or rawget(meta, "__index"))
    if type(index) == "function" then index = select(2, debug.getupvalue(index, 1)) end
    if type(index) == "table" then all[class] = index end
  end
  return all
end

-- --- the nearest name ---

local function all_of(kind)
  if kind == "global" then return names.variables() end
  local list = {}
  if kind == "method" then
    list = names.members(sluice)
    for _, methods in pairs(names.classes()) do
      for method in next, methods do list[#list + 1] = method end
    end
    return list
  end
  for _, table_of in ipairs { sluice, sluice.routing, sluice.data, sluice.io, string, table, math } do
    for _, name in ipairs(names.members(table_of)) do list[#list + 1] = name end
  end
  return list
end

-- The table that name, a field or method, was looked for in: of the first place in the text, on that line if there is one, where it
-- is nil; nil if that cannot be told.
local function owner_in(text, line, name)
  local list, found = tokens.of(text), nil
  for i = 3, #list do
    local mark = list[i - 1].text
    if list[i].text == name and (mark == "." or mark == ":") then
      local owner, method = names.chain(list, i - 2)
      if owner ~= nil and not method and names.get(owner, name) == nil then
        if select(2, text:sub(1, list[i].at):gsub("\n", "")) + 1 == line then return owner end
        found = found or owner
      end
    end
  end
  return found
end

-- The name that is nearest to a global, field or method that is nil; nil if none is near. text, line: where it was used, if that is
-- known; of a table that is found there only its own names are meant.
function names.nearest(kind, name, text, line)
  if kind ~= "global" and kind ~= "field" and kind ~= "method" then return nil end
  local owner = kind ~= "global" and text and owner_in(text, line, name) or nil
  local strings = {}
  for _, known in ipairs(owner ~= nil and names.members(owner, kind == "method") or all_of(kind)) do
    if type(known) == "string" and known ~= name then strings[#strings + 1] = known end
  end
  table.sort(strings)
  local near = fields.nearest(name, strings)
  local alike = near and (near:sub(1, 1) == name:sub(1, 1) or #name > 5) -- of short words most are near each other
  return alike and #name > 2 and near or nil
end

return names
