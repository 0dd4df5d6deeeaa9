-- Compares what a page shows with what was printed.
local doc_text = {}

-- Words, numbers and single other characters; white space only separates them. A number knows how many decimals it was shown with.
local function tokens(text)
  local list, at = {}, 1
  while true do
    at = text:find("%S", at)
    if not at then return list end
    local token = text:match("^…", at) or text:match("^[%a_\128-\255][%w_\128-\255]*", at)
    local number = not token and (text:match("^%-?%d+%.?%d*[eE][-+]?%d+", at) or text:match("^%-?%d+%.?%d*", at))
    token = token or number or text:sub(at, at)
    list[#list + 1] = { text = token, number = number and tonumber(number) }
    at = at + #token
  end
end

-- Half a unit more than one of the last digit that the page shows; 0 for whole numbers.
local function tolerance(shown)
  local decimals, exponent = shown:match "%.(%d*)", tonumber(shown:match "[eE]([-+]?%d+)" or 0)
  if not decimals then return shown:find "[eE]" and 1.5 * 10.0 ^ exponent or 0 end
  return 1.5 * 10.0 ^ (exponent - #decimals)
end

local function same(want, got)
  if want.text == got.text then return true end
  if not (want.number and got.number) then return false end
  return math.abs(want.number - got.number) <= tolerance(want.text)
end

-- Whether `got` is what `want` shows: white space of any width, "…" for anything, numbers to the digits shown.
function doc_text.matches(want, got)
  local w, g = tokens(want), tokens(got)
  local i, j, star, mark = 1, 1, nil, nil
  while j <= #g do
    if w[i] and w[i].text == "…" then
      star, mark, i = i, j, i + 1
    elseif w[i] and same(w[i], g[j]) then
      i, j = i + 1, j + 1
    elseif star then
      mark = mark + 1
      i, j = star + 1, mark
    else
      return false
    end
  end
  while w[i] and w[i].text == "…" do i = i + 1 end
  return i > #w
end

return doc_text
