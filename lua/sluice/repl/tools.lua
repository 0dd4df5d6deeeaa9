-- The prompt's own globals: help, time and show.
local core = require "sluice.core"
local help = require "sluice.help"
local inspect = require "sluice.repl.inspect"
local names = require "sluice.repl.names"
local sluice = require "sluice"
local text_width = require "sluice.text_width"

local tools = {}

local TOUR = [[
Sluice: diffusion models with Denoising Task Routing, in Lua 5.4.

  loaded = sluice.load "models/digits.safetensors"       a trained model: digits
  images = loaded:sample { n = 16, steps = 20 }          draws with it; Ctrl-C stops
  show(images)                                           pictures in the terminal
  x = sluice.randn { 2, 3 }                              a tensor; x:mean(), x * 2, x[1]
  run = sluice.train(recipe)                             trains; sluice.load(run.dir) reads its last checkpoint

  help(x)      of a function, a tensor, a model …, or a name: help "dit"
  time(f, …)   calls f, prints the seconds
  show(x)      draws images, masks, a routing, a data set
  _            the last value that was printed

Tab completes names, options inside { }, and files inside " ". A line may be an expression or a statement; an unfinished one goes on.
Ctrl-C drops the line or stops what runs; Ctrl-D leaves. sluice.repl.live = false: no pictures while sampling.]]

-- The name of a function in the tables of sluice ("routing.dtr", "tensor:item"), or of Lua's own library.
local function in_table(t, f, prefix, depth)
  for _, name in ipairs(names.members(t)) do
    local v = rawget(t, name)
    if rawequal(v, f) then return prefix .. name end
    if type(v) == "table" and depth > 0 then
      local found = in_table(v, f, prefix .. name .. ".", depth - 1)
      if found then return found end
    end
  end
end

local function in_classes(f)
  for class, methods in pairs(names.classes()) do
    for method, v in next, methods do
      if rawequal(v, f) then return class .. ":" .. method end
    end
  end
end

local LIBRARIES = { "string", "table", "math", "io", "os", "coroutine", "utf8", "debug", "package" }

local function in_lua(f)
  for _, library in ipairs(LIBRARIES) do
    local found = in_table(_G[library] or {}, f, library .. ".", 0)
    if found then return found end
  end
  for name, v in next, _G do
    if rawequal(v, f) and debug.getinfo(f, "S").what == "C" then return name end
  end
end

local function of_user(f)
  local info = debug.getinfo(f, "Su")
  local list = {}
  for i = 1, info.nparams do list[i] = debug.getlocal(f, i) end
  if info.isvararg then list[#list + 1] = "..." end
  return ("a function(%s)%s"):format(table.concat(list, ", "),
    info.what == "C" and " of a C library" or (", written at %s:%d"):format(info.short_src, info.linedefined))
end

-- Of the terminal, less one: a full line would wrap in some; nil without one.
local function columns()
  local _, n = core.terminal()
  return n and math.max(20, n - 1)
end

-- The text of a name, or nil.
local function known(name)
  return help.find(name, columns())
end

local function help_of_name(name)
  local text = known(name)
  if text then return text end
  local near = help.nearest(name)
  return ('no help on "%s"%s'):format(name, near and ('; did you mean "%s"?'):format(near) or "; help() is a short tour")
end

local function help_of_function(f)
  local name = in_table(sluice, f, "", 1) or in_classes(f)
  local method = name and name:match ":(.*)$"
  if name then
    local outer = name:match "^(.*)%.[^.]+$"
    return known(name) or method and known(method) or outer and known(outer)
      or ("sluice's %s"):format(name)
  end
  name = in_lua(f)
  if name then return ("Lua's own %s: https://www.lua.org/manual/5.4/manual.html#pdf-%s"):format(name, name) end
  return of_user(f)
end

-- What a value is, and what can be done with it.
local function help_of_value(v)
  local class = names.class(v)
  if not class then return ("a %s: %s"):format(type(v), inspect.text(v)) end
  local methods, all = names.members(v, true), names.members(v)
  table.sort(methods)
  local is_method, own = {}, {}
  for _, name in ipairs(methods) do is_method[name] = true end
  for _, name in ipairs(all) do
    if not is_method[name] then own[#own + 1] = name end
  end
  table.sort(own)
  local lines = { known("sluice." .. class:gsub("^%l", string.upper)) or ("a sluice.%s"):format(class) }
  if #own > 0 then lines[#lines + 1] = "fields: " .. table.concat(own, ", ") end
  if #methods > 0 then lines[#lines + 1] = "methods: " .. table.concat(methods, ", ") end
  return table.concat(lines, "\n")
end

function tools.help(...)
  local text
  if select("#", ...) == 0 then
    text = TOUR
  else
    local v = ...
    if type(v) == "string" then
      text = help_of_name(v)
    elseif type(v) == "function" then
      text = help_of_function(v)
    elseif rawequal(v, sluice) then
      text = TOUR
    else
      text = help_of_value(v)
    end
  end
  io.write(text_width.wrapped(text, columns()), "\n")
end

function tools.time(f, ...)
  local began = core.clock()
  local function finish(...)
    local spent = core.clock() - began
    require("sluice.repl.live").finish()
    io.write(("%.4g s\n"):format(spent))
    return ...
  end
  return finish(f(...))
end

-- The globals of the prompt.
function tools.install(env)
  for name, f in pairs { help = tools.help, time = tools.time, show = sluice.show } do
    if rawget(env, name) == nil then rawset(env, name, f) end -- a file that ran before may have its own
  end
end

return tools
