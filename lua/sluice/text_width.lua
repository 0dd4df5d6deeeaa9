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

return text_width
