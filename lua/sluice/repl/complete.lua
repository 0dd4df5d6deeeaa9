-- What may stand at the cursor: names of live values, option names inside a call's braces, their words and files inside a string.
local core = require "sluice.core"
local names = require "sluice.repl.names"
local sluice = require "sluice"
local text_width = require "sluice.text_width"
local tokens = require "sluice.repl.tokens"

local complete = {}

local MOST = 120 -- names that are listed
local KEYWORDS = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
  "return", "then", "true", "until", "while",
}

-- --- option names ---

local options_at

-- What the call whose name ends at position i takes.
local function options_of_call(list, i)
  local v, method = names.chain(list, i)
  if v == nil then return nil end
  if not method then return names.options_of(v) end
  local class = names.class(v)
  local what = class and class:lower() .. ":" .. method
  local known = what and names.options(what)
  if known then return what, known end
  return nil, select(2, names.options_of(names.get(v, method)))
end

-- What the brace that is number n of the open brackets takes: what it is known as, and its names.
function options_at(list, open, n)
  local at = open[n]
  local before = list[at - 1]
  if not before then return nil end
  if before.text == "=" and list[at - 2] and list[at - 2].kind == "name" and n > 1 then -- key = {
    local outer = options_at(list, open, n - 1)
    local what = outer and outer .. "." .. list[at - 2].text
    local known = what and names.options(what)
    if known then return what, known end
    return nil
  end
  if before.text == "return" and n > 1 and options_at(list, open, n - 1) == "sluice.recipe" then
    return "recipe", names.options "recipe"
  end
  if before.text == "(" or before.text == "," then -- f(…, {
    local paren = n > 1 and open[n - 1]
    if paren and list[paren].text == "(" then return options_of_call(list, paren - 1) end
    return nil
  end
  if before.kind == "name" then return options_of_call(list, at - 1) end
  return nil
end

-- The option names that may stand here, without those that do already; nil where no key may stand.
local function keys_here(list)
  local open = tokens.open_brackets(list)
  local at, last = open[#open], list[#list]
  if not at or list[at].text ~= "{" or not (last.text == "{" or last.text == "," or last.text == ";") then return nil end
  local _, known = options_at(list, open, #open)
  if not known then return nil end
  local given, depth, left = {}, 0, {}
  for i = at + 1, #list do
    local t = list[i].text
    if t == "(" or t == "[" or t == "{" then depth = depth + 1 elseif tokens.CLOSES[t] then depth = depth - 1 end
    if depth == 0 and list[i].kind == "name" and list[i + 1] and list[i + 1].text == "=" then given[t] = true end
  end
  for _, name in ipairs(known) do
    if type(name) == "string" and not given[name] then left[#left + 1] = name end
  end
  return left
end

-- --- candidates ---

-- Files that begin as the open string does.
local function files(content)
  if content:find "[\\\n]" then return {}, "" end
  local folder, prefix = content:match "^(.*/)([^/]*)$"
  folder, prefix = folder or "", prefix or content
  local list = {}
  for _, name in ipairs(core.list(folder == "" and "." or folder)) do
    if name:sub(1, 1) ~= "." or prefix:sub(1, 1) == "." then
      list[#list + 1] = core.exists(folder .. name .. "/.") and name .. "/" or name
    end
  end
  return list, prefix
end

-- Whether the function whose name ends before the open string tells about names.
local function asks_for_help(list)
  local at = #list
  if at > 0 and list[at].text == "(" then at = at - 1 end
  if at < 1 or list[at].kind ~= "name" then return false end
  local f = names.chain(list, at)
  return rawequal(f, sluice.help) or rawequal(f, require("sluice.repl.tools").help)
end

-- The words that may stand in a string: an option's, or topics of help; nil where the tokens before it ask for none.
local function words_here(list)
  local last, key = list[#list], list[#list - 1]
  if last and last.text == "=" and key and key.kind == "name" then
    local open = tokens.open_brackets(list)
    local what = #open > 0 and list[open[#open]].text == "{" and options_at(list, open, #open)
    return what and names.choices(what, key.text) or nil
  end
  return asks_for_help(list) and require("sluice.help").topics() or nil
end

-- What may stand in an open string, and the part that is there: words where one fits, else files.
local function in_string(list, content)
  for _, word in ipairs(words_here(list) or {}) do
    if word:sub(1, #content) == content then return words_here(list), content end
  end
  return files(content)
end

-- All names that may stand at the end of the text, the part of one that is there already, and what to put behind a single one. nil
-- where the key is to be a blank.
local function all_at(text)
  local list, inside = tokens.of(text)
  if inside then
    if inside.kind == "comment" then return {}, "" end
    local found, prefix = in_string(list, inside.content)
    return found, prefix, function(name) return name:match "/$" and "" or inside.quote == "[" and "" or inside.quote end
  end
  local last, prefix = list[#list], ""
  if last and last.kind == "name" and last.stop == #text then prefix, list[#list] = last.text, nil end
  last = list[#list]
  if last and (last.text == "." or last.text == ":") and not (list[#list - 1] and list[#list - 1].text == ".") then
    local v = names.chain(list, #list - 1)
    return v ~= nil and names.members(v, last.text == ":") or {}, prefix
  end
  local keys = last and keys_here(list)
  if keys then return keys, prefix, function() return " = " end, true end
  if prefix == "" then return nil end
  local found = names.variables()
  table.move(KEYWORDS, 1, #KEYWORDS, #found + 1, found)
  return found, prefix
end

-- The names that complete what ends at the cursor, sorted; the part that is there; a function giving what follows a single one.
-- nil where nothing is to be completed and the key is a blank.
function complete.candidates(text)
  local all, prefix, suffix, keys = all_at(text)
  if not all then return nil end
  local found, taken = {}, {}
  local function choose(list)
    for _, name in ipairs(list) do
      local fits = name:sub(1, #prefix) == prefix and (name:sub(1, 1) ~= "_" or prefix:sub(1, 1) == "_")
      if fits and not taken[name] then
        found[#found + 1], taken[name] = name, true
      end
    end
  end
  choose(all)
  if keys and #found == 0 and prefix ~= "" then -- a value in a list, not a key
    suffix = nil
    choose(names.variables())
  end
  table.sort(found)
  return found, prefix, suffix or function() return "" end
end

local function common(list)
  local first, n = list[1], #list[1]
  for _, name in ipairs(list) do
    while name:sub(1, n) ~= first:sub(1, n) do n = n - 1 end
  end
  while n > 0 and n < #first and first:byte(n + 1) >= 0x80 and first:byte(n + 1) < 0xc0 do n = n - 1 end -- whole characters
  return first:sub(1, n)
end

local width = text_width.of

-- The names in columns, down and then across.
function complete.columns(list, columns)
  local shown, widest = {}, 1
  for i = 1, math.min(#list, MOST) do
    shown[i] = list[i]
    widest = math.max(widest, width(list[i]))
  end
  local across = math.max(1, (columns - 1) // (widest + 2))
  local down, rows = math.ceil(#shown / across), {}
  for row = 1, down do
    local parts = {}
    for i = row, #shown, down do parts[#parts + 1] = shown[i] .. (" "):rep(widest + 2 - width(shown[i])) end
    rows[row] = (table.concat(parts):gsub(" +$", ""))
  end
  if #list > MOST then rows[#rows + 1] = ("… and %d more"):format(#list - MOST) end
  return table.concat(rows, "\n")
end

-- The Tab key: what to insert at the cursor (or nil), what to show below the line (or nil).
function complete.key(text, columns)
  local list, prefix, suffix = complete.candidates(text)
  if not list then return "  " end
  if #list == 0 then return nil end
  local whole = common(list)
  if #list == 1 then return whole:sub(#prefix + 1) .. suffix(whole) end
  if #whole > #prefix then return whole:sub(#prefix + 1) end
  return nil, complete.columns(list, columns)
end

return complete
