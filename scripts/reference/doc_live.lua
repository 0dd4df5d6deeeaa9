-- Compares the documentation with the module that runs: names that are missing or too many, fields of options, fields of objects.
-- Runs inside the sluice program.
local core = require "sluice.core"
local doc_areas = require "doc_areas"
local sluice = require "sluice"

local doc_live = {}

-- Classes of userdata that no user gets hold of.
local PRIVATE = { ["sluice.tensor_file"] = true, ["sluice.bench_pass"] = true, ["sluice.json_box"] = true }

local function add_part(names, key, value)
  names["sluice." .. key] = true
  if type(value) ~= "table" then return end
  for part in pairs(value) do names[("sluice.%s.%s"):format(key, part)] = true end
end

-- The module's names, and those of the tables in it; lazily loaded ones too.
local function module_names(root)
  local names = {}
  for line in io.lines(root .. "/bindings/modules.def") do
    local lazy = line:match "^SL_LUA_LAZY%(([%w_]+),"
    if lazy then add_part(names, lazy, sluice[lazy]) end
  end
  for key, value in pairs(sluice) do add_part(names, key, value) end
  add_part(names, "routing", require "sluice.routing") -- what it finds there at first use
  return names
end

local function class_of(metatable_name)
  return "sluice." .. metatable_name:match "%.(.*)$":gsub("^%l", string.upper)
end

-- Methods of userdata, which core.classes tells; operations are the tensors' too.
local function add_methods(names, operations)
  for metatable, methods in pairs(core.classes()) do
    local class = class_of(metatable)
    for _, method in ipairs(PRIVATE[metatable] and {} or methods) do
      if not (class == "sluice.Tensor" and operations["sluice." .. method]) then
        names[("%s:%s"):format(doc_areas.receiver(class), method)] = true
      end
    end
  end
end

-- Operations made of others are functions and methods alike, and documented as methods.
local function add_composed(names)
  for name in pairs(require("sluice.compose").methods) do
    names["tensor:" .. name], names["sluice." .. name] = true, nil
  end
end

-- The object of a class's @setup; nil without one.
local function object_of(class)
  if not class.setup then return nil end
  local name = doc_areas.receiver(class.name)
  local chunk = assert(load(("%s\nreturn %s"):format(class.setup, name), "=setup of " .. class.name, "t"))
  return chunk()
end

-- Methods of objects that are Lua's: functions in the table or behind its metatable, callable tables.
local function add_object(names, class, object)
  if type(object) ~= "table" then return end
  local meta = getmetatable(object)
  for _, t in ipairs { object, type(meta) == "table" and type(meta.__index) == "table" and meta.__index or {} } do
    for key, value in pairs(t) do
      local callable = type(value) == "table" and type(getmetatable(value)) == "table" and getmetatable(value).__call
      if type(key) == "string" and not key:match "^__" and (type(value) == "function" and t ~= object or callable) then
        names[("%s:%s"):format(doc_areas.receiver(class.name), key)] = true
      end
    end
  end
end

-- Fields that are documented without a ? are there.
local function check_fields(source, class, object, fault)
  local fields = {}
  for _, f in ipairs(class.fields) do
    if f.name:match "^[%a_][%w_]*$" then fields[#fields + 1] = { f.name, f.optional } end
  end
  for _, m in ipairs(doc_areas.members(source.entries, class.name)) do
    if m.kind == "field" then fields[#fields + 1] = { m.name:match "%.(.*)$", m.optional } end
  end
  for _, f in ipairs(object ~= nil and fields or {}) do
    local ok, value = pcall(function() return object[f[1]] end)
    if not f[2] and (not ok or value == nil) then fault("%s has no field %s", class.name, f[1]) end
  end
end

-- A key that is near no name: the error then lists those that there are.
local STRANGE = ("?"):rep(61)

-- A value of a documented type, for the arguments before the options.
local function value_of(kind)
  if kind:match "^integer" or kind:match "^number" then return 1 end
  if kind:match "^integer%[%]" then return { 1 } end
  if kind:match "Tensor" then return sluice.zeros { 1, 3, 2, 2 } end
  if kind:match "^string" then return "name" end
  if kind:match "^fun" then return function() end end
  return nil
end

-- The keys that a function lists when it refuses a strange one among its arguments; nil where it does not.
local function keys_in(f, ...)
  local ok, message = pcall(f, ...)
  local list = not ok and tostring(message):match "; there are:? (.*)$"
  if not list then return nil end
  local keys = {}
  for word in list:gmatch "[%w_]+" do keys[word] = true end
  return keys
end

-- The keys that a function takes in its argument number `at`.
local function keys_of(f, e, at, object)
  local args, n = { object }, object ~= nil and 1 or 0
  for i = 1, at - 1 do args[n + i] = value_of(e.params[i].type) end
  args[n + at] = { [STRANGE] = 1 }
  return keys_in(f, table.unpack(args, 1, n + at))
end

local function function_of(name)
  local value = sluice
  for part in name:match "^sluice%.(.*)$":gmatch "[%w_]+" do value = type(value) == "table" and value[part] or nil end
  return value
end

local function check_keys(source, e, p, keys, fault)
  local known = {}
  for _, f in ipairs(p.fields) do
    local name = f.name:match "^%[(%d+)%]$" or f.name:match "^[%w_]+"
    known[name] = true
    if not keys[name] and not tonumber(name) then fault("%s takes no field %s (%s:%d)", e.name, name, e.file, e.line) end
  end
  for _, f in ipairs(doc_areas.fields_of(source, p)) do known[f.name] = true end
  for key in pairs(keys) do
    if not known[key] and not tonumber(key) then
      fault("%s takes the field %s, which is not documented (%s:%d)", e.name, key, e.file, e.line)
    end
  end
end

-- What recipes take in each of their tables, which their own check tells; dots in a field's name lead into a table.
local function check_description(source, fault)
  local parts, e = {}, source.by_name["sluice.Description"]
  for _, f in ipairs(e and e.fields or {}) do
    local prefix, name = f.name:match "^(.-)%.?([^.]+)$"
    parts[prefix] = parts[prefix] or {}
    table.insert(parts[prefix], { name = name })
  end
  for prefix, fields in pairs(parts) do
    local described = {}
    local inner = described
    for word in prefix:gmatch "[^.]+" do
      inner[word] = {}
      inner = inner[word]
    end
    inner[STRANGE] = 1
    local recipe = sluice.recipe { function() return described end }
    local keys = keys_in(recipe.resolve, recipe)
    if keys then check_keys(source, { name = prefix == "" and "a recipe" or "a recipe's " .. prefix, file = e.file, line = e.line },
      { fields = fields }, keys, fault) end
  end
end

local function check_options(source, objects, fault)
  local asked = 0
  for _, e in ipairs(source.entries) do
    local object = objects[e.name:match "^(%l[%w_]*):"]
    for at, p in ipairs(e.params) do
      local f = e.kind == "function" and function_of(e.name) or object and object[e.name:match ":(.*)$"]
      local keys = (#p.fields > 0 or p.fields.of) and f and keys_of(f, e, at, object)
      if keys then
        asked = asked + 1
        check_keys(source, e, p, keys, fault)
      end
    end
  end
  return asked
end

-- What every comment has: a text, and a class that has a comment too.
local function check_comments(source, fault)
  local classes = {}
  for _, e in ipairs(source.entries) do
    if e.kind == "class" then classes[doc_areas.receiver(e.name)] = true end
  end
  for _, e in ipairs(source.operations) do
    if e.text == "" then fault("%s: no comment in core/ops/ops.h or beside its row in ops.def", e.name) end
  end
  for _, e in ipairs(source.entries) do
    local object = e.kind ~= "class" and e.name:match "^(%l[%w_]*)[:.]"
    if object and object ~= "sluice" and not classes[object] then
      fault("%s: its class, sluice.%s, has no comment (%s:%d)", e.name, object:gsub("^%l", string.upper), e.file, e.line)
    end
    if e.text == "" and e.kind ~= "field" then fault("%s: its comment (%s:%d) has no text", e.name, e.file, e.line) end
  end
end

-- The names of the module, and of its classes' methods; objects gets what their @setup makes, by receiver.
local function live_names(source, root, objects, fault)
  local names, operations = module_names(root), {}
  for _, e in ipairs(source.operations) do operations[e.name] = true end
  add_methods(names, operations)
  add_composed(names)
  for _, e in ipairs(source.entries) do
    if e.kind == "class" then
      local ok, object = pcall(object_of, e)
      if not ok then fault("%s: @setup: %s", e.name, tostring(object)) end
      object = ok and object or nil
      objects[doc_areas.receiver(e.name)] = object
      add_object(names, e, object)
      check_fields(source, e, object, fault)
    end
  end
  return names
end

-- fault(text, …) is called for each. Returns how many names and tables of options were compared.
function doc_live.check(source, root, fault)
  check_comments(source, fault)
  local objects = {}
  local names = live_names(source, root, objects, fault)
  local userdata = {}
  for metatable in pairs(core.classes()) do userdata[doc_areas.receiver(class_of(metatable))] = true end
  local count = 0
  for name in pairs(names) do
    count = count + 1
    if not source.by_name[name] then fault("%s has no documentation comment", name) end
  end
  for _, e in ipairs(source.entries) do
    local object = e.name:match "^(%l[%w_]*)[:.]"
    local seen = object == "sluice" or e.kind == "method" and (objects[object] or userdata[object]) -- else nothing tells
    if e.kind ~= "class" and seen and not names[e.name] then
      fault("%s is documented (%s:%d), but is not there", e.name, e.file, e.line)
    end
  end
  check_description(source, fault)
  return count, check_options(source, objects, fault)
end

return doc_live
