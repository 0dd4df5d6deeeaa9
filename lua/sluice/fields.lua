-- Option tables: unknown fields are refused with the nearest right name.
local fields = {}

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local left = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      left, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, left + cost)
    end
  end
  return row[#b]
end

-- The name in `names` that is nearest to `name`, or nil if none is near.
function fields.nearest(name, names)
  local best, least
  for _, candidate in ipairs(names) do
    local d = distance(name, tostring(candidate)) -- 1, 2 … are fields too
    if not least or d < least then best, least = candidate, d end
  end
  return least and least <= math.max(2, #name // 3) and best or nil
end

-- What follows a wrong name in a message: the nearest of `names`, or all of them.
function fields.hint(name, names)
  local near = fields.nearest(name, names)
  return near and ('; did you mean "%s"?'):format(near) or ("; there are: %s"):format(table.concat(names, ", "))
end

-- A new table with the fields of these (nil for none), a later one's over an earlier one's.
function fields.merged(...)
  local all = {}
  for i = 1, select("#", ...) do
    for k, v in pairs((select(i, ...)) or {}) do all[k] = v end
  end
  return all
end

-- The keys of a table, sorted.
function fields.keys(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- A value in a message: of a tensor its dtype and sizes, of what has no text of its own its type.
function fields.what(v)
  if require "sluice".is_tensor(v) then return ("%s %s"):format(v:dtype(), tostring(v:shape())) end
  local meta = debug.getmetatable(v)
  local told = type(meta) == "table" and rawget(meta, "__tostring")
  if type(v) == "string" then return #v > 60 and "a long string" or '"' .. v .. '"' end
  if type(v) == "number" or type(v) == "boolean" or v == nil or told then return tostring(v) end
  return "a " .. type(v)
end

-- The name under which `f` stands among the functions of `makers`, after `prefix`; nil if it is none of them.
function fields.maker(f, makers, prefix)
  for name, maker in pairs(makers) do
    if rawequal(maker, f) and name ~= "is" then return prefix .. name end
  end
end

-- Raises at `level` (0: without a position) unless every key of t is in names. what: "sluice.sample" and the like.
function fields.check(t, names, what, level)
  level = level == 0 and 0 or (level or 1) + 1
  if type(t) ~= "table" then error(("%s: expected a table, got %s"):format(what, fields.what(t)), level) end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for key in pairs(t) do
    if not known[key] then
      error(("%s: unknown field %s%s"):format(what, type(key) == "string" and '"' .. key .. '"' or tostring(key),
        fields.hint(tostring(key), names)), level)
    end
  end
  return t
end

-- t[name] of one of the given types, or the default. types: "number", "number|nil", "table" …
function fields.get(t, name, types, default, what, level)
  local v = t[name]
  if v == nil then return default end
  for want in types:gmatch("[^|]+") do
    if type(v) == want or math.type(v) == want then return v end
  end
  error(("%s: %s is %s, expected %s"):format(what, name, fields.what(v), (types:gsub("|", " or "))),
    level == 0 and 0 or (level or 1) + 1)
end

return fields
