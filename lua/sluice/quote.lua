-- Text that a user can type: words of a shell, strings of Lua.
local quote = {}

-- A word for a shell, in quotes only where it needs them.
function quote.shell(word)
  if word:match "^[%w_%-+=@%%:,./]+$" and not word:match "^[-=]" then return word end
  local text = "'" .. word:gsub("'", "'\\''") .. "'"
  return word:match "^%-" and "./" .. text or text -- else it would be taken for an option
end

-- A string for Lua, on one line.
function quote.lua(text)
  return (("%q"):format(text):gsub("\\\n", "\\n"))
end

return quote
