-- The pages of docs/reference as Markdown.
local doc_areas = require "doc_areas"

local doc_pages = {}

local NOTE = "<!-- Made by scripts/make-reference from the documentation comments; change those. -->\n"

local function cell(text)
  return (text:gsub("|", "\\|"):gsub("\n+", " "))
end

local function code(text)
  return ("`%s`"):format(text)
end

local function name_of(p)
  return p.optional and p.name .. "?" or p.name
end

-- Rows of a table, if any of them says more than the call's first line does.
local function add_table(out, title, list)
  if #list == 0 then return end
  out[#out + 1] = ("| %s | type | |\n|---|---|---|"):format(title)
  for _, p in ipairs(list) do
    out[#out + 1] = ("| %s | %s | %s |"):format(cell(code(name_of(p))), cell(code(p.type)), cell(p.text))
  end
  out[#out + 1] = ""
end

local function add_parameters(out, e)
  local plain = {}
  for _, p in ipairs(e.params) do
    if #p.fields == 0 or p.text ~= "" then plain[#plain + 1] = p end
  end
  add_table(out, "argument", plain)
  for _, p in ipairs(e.params) do
    add_table(out, ("field of `%s`"):format(p.name), p.fields)
    if p.fields.of then
      out[#out + 1] = ("`%s` %stakes the fields of `%s`.\n"):format(p.name, #p.fields > 0 and "also " or "", p.fields.of)
    end
  end
end

local function add_returns(out, e)
  local first = e.returns[1]
  if not first then return end
  local told = #e.returns == 1 and not first.name and first.text == "" and #first.fields == 0 -- by the call itself
  local words = {}
  for i, r in ipairs(e.returns) do
    words[i] = code(r.type) .. (r.name and " " .. r.name or "") .. (r.text ~= "" and ", " .. r.text or "")
  end
  if not told then out[#out + 1] = "Returns " .. table.concat(words, "; ") .. ".\n" end
  for _, r in ipairs(e.returns) do add_table(out, "field of the result", r.fields) end
end

local function add_code(out, text)
  if text then out[#out + 1] = ("```lua\n%s\n```\n"):format(text) end
end

local function add_text(out, text)
  if text ~= "" then out[#out + 1] = text .. "\n" end
end

local function heading(e)
  return e.kind == "class" and "###" or e.name:match "^%l[%w_]*:" and "####" or "###", e.name
end

local function add_entry(out, e)
  out[#out + 1] = ("%s %s\n"):format(heading(e))
  if e.signature and e.signature ~= e.name then add_code(out, e.signature) end
  add_text(out, e.text)
  add_table(out, "field", e.fields)
  add_parameters(out, e)
  add_returns(out, e)
  if e.setup then
    add_text(out, "In the examples of its methods:")
    add_code(out, e.setup)
  end
  add_code(out, e.example)
end

-- Fields that have comments of their own stand in one table under their class.
local function add_fields(out, list)
  local rows = {}
  for _, e in ipairs(list) do
    rows[#rows + 1] = { name = e.name, optional = e.optional, type = e.type, text = e.text }
  end
  add_table(out, "field", rows)
end

local function add_operations(out, operations)
  local group
  for _, e in ipairs(operations) do
    if e.group ~= group then
      out[#out + 1] = ("%s### %s\n"):format(group and "\n" or "", e.group)
      group = e.group
    end
    local results = #e.returns > 1 and e.signature:match " %-> .*$" or ""
    out[#out + 1] = ("- `%s%s`  \n  %s"):format(e.signature:match "^sluice%.(.-) %->", results, e.text)
  end
  out[#out + 1] = ""
end

local function page_text(page)
  local out = { NOTE, ("# %s\n"):format(page.title), page.intro .. "\n" }
  for _, section in ipairs(page.sections) do
    out[#out + 1] = ("## %s\n"):format(section.title)
    add_text(out, section.text or "")
    local fields = {}
    for _, e in ipairs(section.entries) do
      if e.kind ~= "field" and #fields > 0 then
        add_fields(out, fields)
        fields = {}
      end
      if e.kind == "field" then fields[#fields + 1] = e else add_entry(out, e) end
    end
    add_fields(out, fields)
    if section.operations then add_operations(out, section.operations) end
  end
  return (table.concat(out, "\n"):gsub("\n\n\n+", "\n\n"):gsub("\n+$", "\n"))
end

-- GitHub's anchors of a page's headings, by name: one that is there already gets a number.
local function anchors_of(text)
  local anchors, count, code_block = {}, {}, false
  for line in text:gmatch "[^\n]*" do
    if line:match "^```" then code_block = not code_block end
    local title = not code_block and line:match "^#+ (.*)$"
    if title then
      local anchor = title:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")
      local n = count[anchor] or 0
      count[anchor] = n + 1
      anchors[title] = n == 0 and anchor or ("%s-%d"):format(anchor, n)
    end
  end
  return anchors
end

-- files: the pages' texts.
local function index_text(pages, files, more)
  local out = { NOTE, "# Reference\n",
    "Every public name. `sluice.help \"dit\"` tells the same in the program; the [guide](../guide.md) "
    .. "tells how they work together. Types are written as LuaLS writes them: `integer[]` is a list of integers, `a?` may be left out "
    .. "(its text then begins with what stands in its place), `...` stands for any number. A call in braces, `sluice.dit { … }`, takes "
    .. "one table of named fields.\n" }
  for _, page in ipairs(pages) do
    out[#out + 1] = ("## [%s](%s.md)\n"):format(page.title, page.id)
    local anchors = anchors_of(files[page.id .. ".md"])
    for _, section in ipairs(page.sections) do
      local words = {}
      for _, e in ipairs(section.entries) do
        if anchors[e.name] then words[#words + 1] = ("[%s](%s.md#%s)"):format(e.name, page.id, anchors[e.name]) end
      end
      local names = table.concat(words, ", ")
      if section.operations then
        words = {}
        for _, e in ipairs(section.operations) do words[#words + 1] = e.name:match "%.(.*)$" end
        names = ("[%s](%s.md#operations)"):format(table.concat(words, ", "), page.id)
      end
      out[#out + 1] = ("%s: %s\n"):format(section.title, names)
    end
  end
  if more then out[#out + 1] = more end
  return (table.concat(out, "\n"):gsub("\n+$", "\n"))
end

-- { file name = text }. c_page: the text of the page of the C API, or nil.
function doc_pages.make(entries, operations, c_page)
  local files, pages = {}, doc_areas.collect(entries, operations)
  for _, page in ipairs(pages) do files[page.id .. ".md"] = page_text(page) end
  if c_page then files["c-api.md"] = NOTE .. "\n" .. c_page end
  files["README.md"] = index_text(pages, files, c_page and "## [C](c-api.md)\n\nWhat a program that embeds Sluice calls.\n")
  return files
end

-- Names of files in a folder that are not what would be made, in words; an empty list if all are.
function doc_pages.stale(pages, dir, there)
  local list = {}
  for name, text in pairs(pages) do
    local f <close> = io.open(dir .. "/" .. name, "rb")
    if not f or f:read "a" ~= text then list[#list + 1] = name end
  end
  for _, path in ipairs(there) do
    local name = path:match "[^/]*$"
    if not pages[name] then list[#list + 1] = name .. " (no longer made)" end
  end
  table.sort(list)
  return list
end

return doc_pages
