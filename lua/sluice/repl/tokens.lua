-- What was typed, as Lua's scanner sees it, finished or not.
local tokens = {}

-- The long bracket that begins at `at` ("[[", "[==["): what closes it, or nil.
local function long_close(text, at)
  local level = text:match("^%[(=*)%[", at)
  return level and "]" .. level .. "]"
end

-- Where the string that begins at `at` with a quote ends; nil if it is open.
local function string_end(text, at)
  local quote, i = text:sub(at, at), at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == quote then return i end
    if c == "\n" then return i end
    i = i + (c == "\\" and 2 or 1)
  end
end

-- The end of what begins at `at` and is no code; nil if it is open; and its kind.
local function skip(text, at)
  local c = text:sub(at, at)
  if c == '"' or c == "'" then return string_end(text, at), "string" end
  local comment = text:match("^%-%-", at)
  local close = long_close(text, comment and at + 2 or at)
  if close then
    local _, stop = text:find(close, at, true)
    return stop, comment and "comment" or "string"
  end
  if comment then return text:find("\n", at, true), "comment" end
  return 0
end

-- The tokens { kind, text, at } of the text; and how it ends if in an open string or comment: { kind, content }.
function tokens.of(text)
  local list, at = {}, 1
  while true do
    at = text:match("^%s*()", at)
    if at > #text then return list end
    local stop, kind = skip(text, at)
    if stop == nil then
      local quote = text:sub(at, at)
      return list, { kind = kind, content = text:sub(text:match("^%[=*%[()", at) or at + 1), quote = quote }
    end
    if stop == 0 then
      local word = text:match("^[%a_][%w_]*", at)
      local number = not word and text:match("^%.?%d[%w.]*", at)
      kind, stop = word and "name" or number and "number" or "symbol", at + #(word or number or "x") - 1
    end
    if kind ~= "comment" then list[#list + 1] = { kind = kind, text = text:sub(at, stop), at = at, stop = stop } end
    at = stop + 1
  end
end

tokens.CLOSES = { [")"] = "(", ["]"] = "[", ["}"] = "{" }

-- The positions in the list of the brackets that are open at its end, the outermost first.
function tokens.open_brackets(list)
  local open = {}
  for i, t in ipairs(list) do
    if t.kind == "symbol" then
      if t.text == "(" or t.text == "[" or t.text == "{" then open[#open + 1] = i
      elseif tokens.CLOSES[t.text] and open[1] and list[open[#open]].text == tokens.CLOSES[t.text] then open[#open] = nil end
    end
  end
  return open
end

return tokens
