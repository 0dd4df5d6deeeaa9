-- Text that reads back as what it was: words of a shell, numbers, strings of Lua.
local quote = {}

-- A word for a shell, in quotes only where it needs them.
function quote.shell(word)
  if word:match "^[%w_%-+=@%%:,./]+$" and not word:match "^[-=]" then return word end
  local text = "'" .. word:gsub("'", "'\\''") .. "'"
  return word:match "^%-" and "./" .. text or text -- else it would be taken for an option
end

-- A number as text that gives it back, the same whatever the locale.
function quote.number(v)
  if math.type(v) ~= "float" then return tostring(v) end
  local short = ("%.14g"):format(v)
  local text = tonumber(short) == v and short or ("%.17g"):format(v)
  return (text:gsub("[^%w+-]+", "."))
end

-- A string for Lua, on one line.
function quote.lua(text)
  return (("%q"):format(text):gsub("\\\n", "\\n"))
end

return quote
