-- Locals of the prompt. Each input is a chunk of its own, and with it a local would be gone; so that code of a file may be typed or
-- pasted line by line, an input that begins with `local` declares names that later inputs see, too, while _G has none of them.
local tokens = require "sluice.repl.tokens"

local locals = {}

-- Kept, as nothing protects the prompt where a user's global takes the place of one of Lua's.
local globals, rawget, rawset, rawequal, setmetatable, load = _G, rawget, rawset, rawequal, setmetatable, load
local getupvalue, setupvalue, ipairs, pairs = debug.getupvalue, debug.setupvalue, ipairs, pairs

local declared = {}

-- What chunks of the prompt see: locals, whose values it holds, else globals. As long as there is no local, Lua looks in _G by itself,
-- which is faster.
local scope = { __index = globals, __newindex = globals, __pairs = function() return next, globals end }

locals.env = setmetatable({}, scope)

local function declare(name)
  declared[name] = true
  rawset(locals.env, name, nil)
  function scope.__index(_, key)
    if not declared[key] then return globals[key] end
  end
  function scope.__newindex(env, key, value)
    if declared[key] then rawset(env, key, value) else globals[key] = value end
  end
end

function locals.is(name)
  return declared[name] == true
end

-- The value of a local or of a global, as it lies in _G.
function locals.get(name)
  return rawget(declared[name] and locals.env or globals, name)
end

-- All locals by name, nil or not: a set.
function locals.names()
  return declared
end

-- Without any, as at first.
function locals.forget()
  for name in pairs(declared) do rawset(locals.env, name, nil) end
  declared = {}
  scope.__index, scope.__newindex = globals, globals
end

-- --- declarations ---

-- The names that the statement declares whose tokens follow its `local`, and the position of the first token behind them; nil for
-- what is left to Lua. blank(token): called for what an assignment has not.
local function names_of(list, blank)
  local names, at = {}, 2
  if list[2].text == "function" then return { list[3].text }, 3 end
  while true do
    names[#names + 1] = list[at].text
    at = at + 1
    local opens = list[at]
    if opens and opens.text == "<" then
      if list[at + 1].text == "close" then return nil end
      for i = at, at + 2 do blank(list[i]) end
      at = at + 3
    end
    if not list[at] or list[at].text ~= "," then return names, at end
    at = at + 1
  end
end

-- Code that Lua compiles and that begins with `local`, as the same code with an assignment, each character where it was; the names that
-- it declares; whether they get values. nil for other code.
function locals.declaration(text)
  local list = tokens.of(text)
  if not list[1] or list[1].text ~= "local" then return nil end
  local blanks = { list[1] }
  local names, at = names_of(list, function(token) blanks[#blanks + 1] = token end)
  if not names then return nil end
  local assigned = list[2].text == "function" or (list[at] ~= nil and list[at].text == "=")
  if not assigned then
    for i = 2, at - 1 do blanks[#blanks + 1] = list[i] end
  end
  for _, token in ipairs(blanks) do
    text = text:sub(1, token.at - 1) .. (" "):rep(#token.text) .. text:sub(token.stop + 1)
  end
  return text, names, assigned
end

-- In the values of a declaration its names still mean what they meant before: only by being assigned they become locals. Such a chunk
-- has an environment of its own until it has run. What was printed last, _, stays at hand.
local function declaring(names)
  local wanted = {}
  for _, name in ipairs(names) do wanted[name] = true end
  return setmetatable({}, {
    __index = locals.env,
    __newindex = function(_, name, value)
      local new = wanted[name]
      wanted[name] = nil
      if new and name == "_" then return end
      if new then declare(name) end
      locals.env[name] = value
    end,
  })
end

local pending -- the environment of the declaration that was loaded last

-- The function that an input is, with the prompt's variables; nil and a message.
function locals.load(text, chunk)
  local f, message = load(text, chunk, "t", locals.env)
  if not f then return nil, message end
  local code, names, assigned = locals.declaration(text)
  local env = assigned and declaring(names) or locals.env
  local declares = code and load(code, chunk, "t", env)
  if not declares then return f end
  pending = assigned and env or nil
  if not assigned then
    for _, name in ipairs(names) do
      if name ~= "_" then declare(name) end
    end
  end
  return declares
end

-- To be called when a function of locals.load has ended.
function locals.ran(f)
  local _, env = getupvalue(f, 1)
  if pending and rawequal(env, pending) then setupvalue(f, 1, locals.env) end -- for the functions inside, too
  pending = nil
end

return locals
