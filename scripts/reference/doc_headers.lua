-- The page of the C API: the headers that core/sluice.h includes, each comment as text above the declarations that follow it.
local doc_headers = {}

local function read(path)
  local f <close> = io.open(path)
  return f and f:read "a"
end

-- C's own names in code's form, so that Markdown leaves stars and underlines alone.
local function markdown(text)
  text = text:gsub("%f[%w_`][%a_]+_[%w_]+%f[^%w_]", "`%0`"):gsub("`([%w_]+)`%(%)", "`%1()`")
  return (text:gsub("<", "&lt;"):gsub("%*", "\\*"))
end

-- A comment as Markdown: paragraphs, and what is indented as code.
local function prose(body)
  local out, words, code = {}, {}, {}
  local function close()
    if #words > 0 then out[#out + 1] = markdown(table.concat(words, " ")) end
    if #code > 0 then out[#out + 1] = ("```c\n%s\n```"):format(table.concat(code, "\n")) end
    words, code = {}, {}
  end
  for line in (body .. "\n"):gmatch "(.-)\n" do
    local text = line:gsub("^%s*%* ?", "")
    local indented = line:match "^%s*%*%s%s%s" ~= nil
    if text:match "^%s*$" or indented ~= (#code > 0) then close() end
    if indented then code[#code + 1] = text:gsub("^  ", "") elseif text:match "%S" then words[#words + 1] = text:match "^%s*(.-)%s*$" end
  end
  close()
  return table.concat(out, "\n\n")
end

-- The header's text without guards, includes and what is private (sl__…); macros stay.
local function strip(text)
  text = text:gsub('#%s*ifdef __cplusplus\n[^\n]*\n#%s*endif[^\n]*\n', ""):gsub("#%s*endif[^\n]*%s*$", "")
  text = text:gsub("\\\n", "\1"):gsub("[^\n]*", function(line)
    if line:match "^#%s*ifndef SL" or line:match "^#%s*define SL[%w_]*_H$" or line:match "^#%s*include" or line:match "sl__" then
      return "\2"
    end
  end)
  return (text:gsub("\2\n?", ""):gsub("\1", "\\\n"))
end

local function flush(out, code)
  local text = table.concat(code, "\n"):gsub("^%s*\n", ""):gsub("%s+$", "")
  if text ~= "" then out[#out + 1] = ("```c\n%s\n```\n"):format(text) end
  for i = #code, 1, -1 do code[i] = nil end
end

-- Adds a comment that began a line: a section's title, or text.
local function add_comment(out, body)
  local title = body:match "^%s*%-%-%-%s*(.-)%s*%-%-%-%s*$"
  if title then
    out[#out + 1] = ("### %s\n"):format(title:gsub("%s+", " "):gsub("^%l", string.upper))
  else
    out[#out + 1] = prose(body) .. "\n"
  end
end

local function section(name, text)
  local out, code, at = { ("## %s\n"):format(name) }, {}, 1
  text = strip(text)
  while at <= #text do
    local stop, after, body = text:find("^/%*(.-)%*/[ \t]*\n", at)
    if stop then
      flush(out, code)
      add_comment(out, body)
      at = after + 1
    else
      local line_end = text:find("\n", at, true) or #text
      code[#code + 1] = text:sub(at, line_end - 1)
      at = line_end + 1
    end
  end
  flush(out, code)
  return table.concat(out, "\n")
end

-- The page's text; or nil and why there is none.
function doc_headers.page(root)
  local umbrella = read(root .. "/core/sluice.h")
  if not umbrella then return nil, "core/sluice.h is not there: the page of the C API is left out" end
  local intro = umbrella:match "^%s*/%*(.-)%*/"
  local out = { "# C\n", intro and prose(intro) .. "\n" or "" }
  for name in umbrella:gmatch '#%s*include%s*["<]([%w_/]+%.h)[">]' do
    local text = read(root .. "/core/" .. name)
    if text then out[#out + 1] = section(name, text) end
  end
  return table.concat(out, "\n")
end

return doc_headers
