-- The public operations: signatures from the rows of core/ops/ops.def (the grammar stands in core/graph/op.h), texts from the comments
-- of their prototypes in core/ops/ops.h, or of the row itself where there is no prototype. Entries as doc_comments makes, with
-- op = true, group (the title of the row's section) and method (whether t:NAME exists).
local doc_operations = {}

local TYPES = {
  i = "integer", d = "integer", p = "integer", b = "boolean", f = "number", t = "sluice.DType", l = "integer[]", L = "integer[]",
}

local function read(path)
  local f <close> = assert(io.open(path))
  return f:read "a"
end

-- A C comment's text in one sentence or more, without what concerns C alone; nil for a section's title.
local function comment_text(body)
  if body:match "^%s*%-%-%-" then return nil end
  local text = body:gsub("\n%s*%*?%s?", " "):gsub("%s+", " "):gsub("^%s+", ""):gsub("%s+$", "")
  text = text:gsub(" %[opt%]", ""):gsub(" %(in C [^)]*%)", ""):gsub("[;,] in C [^.;]*", "")
  if text:match "^%l%l+[ ,:;]" then text = text:gsub("^%l", string.upper) end
  return text:match "%a%a%a%a" and not text:match "[.)]$" and text .. "." or text
end

-- { name = text } of the prototypes `sl_value *sl_<name>(…)` in a header: the comment after it on its line, or the one before it.
local function prototype_texts(path)
  local texts, source, at, pending = {}, read(path), 1, nil
  while true do
    local next_comment, comment_end, body = source:find("/%*(.-)%*/", at)
    local next_prototype, prototype_end, name = source:find("\nsl_value %*sl_([%w_]+)%(", at - 1)
    local blank = source:find("\n%s*\n", at - 1)
    if not next_prototype and not next_comment then return texts end
    if next_comment and not (next_prototype and next_prototype < next_comment) then
      pending, at = comment_text(body), comment_end + 1
    else
      if blank and blank < next_prototype then pending = nil end
      local stop = source:find(";", prototype_end, true)
      local after = source:match("^;[ \t]*/%*([^\n]-)%*/", stop)
      texts[name], pending = after and comment_text(after) or pending, nil
      at = after and source:find("*/", stop, true) + 2 or stop + 1
    end
  end
end

local function default_of(kind, text)
  if text == nil then return nil end
  if kind == "b" then return text == "1" and "true" or "false" end
  if kind == "t" or kind == "e" then return ('"%s"'):format(text) end
  if kind == "l" or kind == "L" then return (text:gsub(",", ", ")) end
  if (kind == "d" or kind == "p") and tonumber(text) >= 0 then return tostring(math.tointeger(tonumber(text)) + 1) end
  return text
end

local function add_inputs(e, inputs)
  for word in inputs:gmatch "%S+" do
    local name, mark = word:match "^([%w_]+)([?*]?)$"
    e.params[#e.params + 1] = {
      name = mark == "*" and "..." or name, optional = mark == "?", type = mark == "*" and "sluice.Tensor" or "sluice.Tensor|number",
      text = mark == "*" and "tensors, or a list of them" or "", fields = {},
    }
  end
end

local function add_attributes(e, attributes)
  for name, kind, choices, default in attributes:gmatch "([%w_]+):(%a)(%b())=?([^%s]*)" do
    local words = {}
    for word in choices:gmatch "[%w_]+" do words[#words + 1] = ('"%s"'):format(word) end
    e.found[name] = { kind = kind, type = table.concat(words, "|"), default = default ~= "" and default or nil }
  end
  for word in attributes:gmatch "%S+" do
    local name, kind = word:match "^([%w_]+):(%a)"
    local a = e.found[name] or { kind = kind, type = TYPES[kind], default = word:match "=(.*)$" }
    e.params[#e.params + 1] = {
      name = name, optional = a.default ~= nil, type = a.type, text = "", default = default_of(kind, a.default), fields = {},
    }
  end
end

local function call_of(name, params)
  local words = {}
  for i, p in ipairs(params) do
    words[i] = p.default and ("%s = %s"):format(p.name, p.default) or p.optional and p.name .. "?" or p.name
  end
  return ("%s(%s)"):format(name, table.concat(words, ", "))
end

-- What a text names after "Outputs:", or as many tensors.
local function add_returns(e, count)
  local named = e.text:match "Outputs: ([%l%d_, ]+)"
  if named then
    for word in named:gmatch "[%w_]+" do e.returns[#e.returns + 1] = { type = "sluice.Tensor", name = word, text = "", fields = {} } end
  else
    for i = 1, count == "8" and 1 or tonumber(count) do
      e.returns[i] = { type = "sluice.Tensor", name = count == "8" and "..." or nil, text = "", fields = {} }
    end
  end
  local words = {}
  for i, r in ipairs(e.returns) do words[i] = r.name or "tensor" end
  return count == "8" and "tensor, …" or table.concat(words, ", ")
end

local function entry(row, text, group)
  local e = {
    kind = "function", op = true, name = "sluice." .. row.name, text = text or "", group = group, params = {}, returns = {}, fields = {},
    raw = {}, found = {}, file = "core/ops/ops.def", line = row.line, method = row.inputs ~= "",
  }
  add_inputs(e, row.inputs)
  add_attributes(e, row.attributes)
  e.signature = ("%s -> %s"):format(call_of(e.name, e.params), add_returns(e, row.outputs))
  e.found = nil
  return e
end

-- The entries in the order of the rows. root: the source folder.
function doc_operations.read(root)
  local texts, out, group, number, row = prototype_texts(root .. "/core/ops/ops.h"), {}, nil, 0, nil
  for line in io.lines(root .. "/core/ops/ops.def") do
    number = number + 1
    group = line:match "^/%* (%l[%l ]*)[%(:]" or group
    row = row and row .. line or line:match "^SL_OP%(.*"
    if row and row:match "%)%s*$" or row and row:match "%)%s*/%*.*%*/%s*$" then
      local name, inputs, attributes, outputs, flags = row:match '^SL_OP%(([%w_]+), "(.-)", "(.-)", (%d+),%s*(.-)%)'
      if name and not flags:find("SL_OP_PRIVATE", 1, true) then
        local own = row:match "/%*%s*(.-)%s*%*/"
        own = own and not own:match "%.c$" and own or nil
        out[#out + 1] = entry({ name = name, inputs = inputs, attributes = attributes, outputs = outputs, line = number },
          texts[name] or own and comment_text(own), (group:gsub("^%l", string.upper):gsub("%s+$", "")))
      end
      row = nil
    end
  end
  return out
end

return doc_operations
