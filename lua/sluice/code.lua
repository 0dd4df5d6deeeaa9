-- A recipe's Lua files: found beside it by require, stored with its run, and served from there when the run goes on.
local core = require "sluice.core"
local disk = require "sluice.disk"
local quote = require "sluice.quote"
local recipe = require "sluice.recipe"

local code = {}

local function paths(folder)
  return ("%s/?.lua;%s/?/init.lua"):format(folder, folder)
end

local searched = {}

-- From now on modules are also looked for in `folder`, after all other places.
function code.search(folder)
  if searched[folder] then return end
  searched[folder] = true
  table.insert(package.searchers, function(name)
    local path, tried = package.searchpath(name, paths(folder))
    if not path then return tried end
    local chunk, message = loadfile(path, "t")
    if not chunk then error(("error loading module '%s' from file '%s':\n\t%s"):format(name, path, message), 0) end
    return chunk, path
  end)
end

-- The chunk of a user's file, whose folder is searched for modules from now on; raises in words.
function code.chunk(path)
  code.search(disk.folder_of(path))
  local chunk, message = loadfile(path, "t")
  if not chunk then error(message, 0) end
  return chunk
end

-- While a script is loaded for its recipe, sluice.train and sluice.sweep do nothing: they raise { captured = recipe, sweep = options }.
code.capturing = false

-- Calls a chunk for its recipe or sweep -> what it returned; or nil and what it would have trained.
function code.capture(chunk, word)
  local before = code.capturing -- a chunk may load another
  code.capturing = true
  local ok, result = pcall(chunk, word)
  code.capturing = before
  if ok then return result, nil end
  if type(result) == "table" and result.captured then return nil, result end
  error(result, 0)
end

-- The recipe that a file returns, or that it would train; raises in words.
function code.load_recipe(path)
  local result, would = code.capture(code.chunk(path), "train")
  local sweep = would and would.sweep or type(result) == "table" and result.base and result.out
  if sweep then error(("%s is a sweep; sluice sweep %s trains it"):format(path, quote.shell(path)), 0) end
  if would then result = would.captured end
  if not recipe.is(result) then
    error(("%s does not return a recipe; its last line should be `return recipe`"):format(path), 0)
  end
  result.file = path -- its function may stand in another one, which this one requires
  return result
end

-- What has been required from files below `folder`: { name = { path = relative to it, text = } }
function code.required(folder)
  local root, found = core.absolute(folder) .. "/", {}
  for name in pairs(package.loaded) do
    local path = type(name) == "string" and package.searchpath(name, paths(folder) .. ";" .. package.path)
    path = path and core.absolute(path)
    if path and path:sub(1, #root) == root and not name:match("^sluice%f[.%z]") then
      found[name] = { path = path:sub(#root + 1), text = disk.read(path) }
    end
  end
  return found
end

-- Loads a stored recipe with the modules stored beside it, under its old name, so that it finds its data as before. Of a script that
-- trains by itself, the recipe that it trains.
-- modules: { name = path below folder/code }
function code.load_stored(folder, source, modules)
  local text, message = disk.read(folder .. "/recipe.lua")
  if not text then error(message, 0) end
  local root = disk.folder_of(source)
  code.search(root)
  local function stored(name)
    local path = modules[name]
    if not path then return nil end
    local module = assert(disk.read(folder .. "/code/" .. path))
    return assert(load(module, "@" .. root .. "/" .. path, "t")), path
  end
  table.insert(package.searchers, 2, stored)
  local ok, result, would = pcall(function() return code.capture(assert(load(text, "@" .. source, "t")), "train") end)
  for i, searcher in ipairs(package.searchers) do
    if searcher == stored then table.remove(package.searchers, i) end
  end
  if not ok then error(result, 0) end
  return would and would.captured or result
end

return code
