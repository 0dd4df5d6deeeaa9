-- How wide text is in a terminal, as far as Sluice's own texts go: a column for each character of UTF-8, for each byte of what is none.
local text_width = {}

function text_width.of(text)
  return utf8.len(text) or #text
end

-- At most n columns of a text, whole characters.
function text_width.cut(text, n)
  if text_width.of(text) <= n then return text end
  return text:sub(1, utf8.len(text) and utf8.offset(text, n + 1) - 1 or n)
end

-- The text in lines of at most `columns` (nil: as it is), broken between words; what goes on is indented.
function text_width.wrapped(text, columns)
  if not columns then return text end
  local rows = {}
  for row in (text .. "\n"):gmatch "([^\n]*)\n" do
    while text_width.of(row) > columns do
      local cut = text_width.cut(row, columns):match "^%s*%S.*() " -- not in the indentation
      if not cut then break end
      rows[#rows + 1] = row:sub(1, cut - 1)
      row = "  " .. row:sub(cut + 1)
    end
    rows[#rows + 1] = row
  end
  return table.concat(rows, "\n")
end

return text_width
