-- The fenced blocks of a page, and the Lua chunk that runs them in order. CONTRIBUTING.md ("Pages") tells what a page may hold.
local doc_blocks = {}

local RUN = { lua = true, sh = true, console = true }
local DIRECTIVES = { skip = true, replace = true, file = true, with = true }

-- { line, language, lines, directives = { {name, value} … }, after = the block right before it, or nil }, in order.
function doc_blocks.read(text)
  local blocks, directives, open, previous, n = {}, {}, nil, nil, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    n = n + 1
    local language = line:match "^```(.*)$"
    local name, value = line:match "^<!%-%-%s*(%a+):%s*(.-)%s*%-%->$"
    if open and not language then
      open.lines[#open.lines + 1] = line
    elseif open then
      blocks[#blocks + 1], previous, open, directives = open, open, nil, {}
    elseif language then
      open = { line = n, language = language, lines = {}, directives = directives, after = previous }
      if language == "" then error(("line %d: the block has no language"):format(n), 0) end
    elseif name then
      if not DIRECTIVES[name] then error(("line %d: unknown directive %s"):format(n, name), 0) end
      directives[#directives + 1] = { name = name, value = value }
      previous = nil
    elseif line:find "%S" then
      if #directives > 0 then error(("line %d: a directive without a block"):format(n), 0) end
      previous = nil
    end
  end
  if open then error(("line %d: the block has no end"):format(open.line), 0) end
  return blocks
end

local function directive(block, name)
  for _, d in ipairs(block.directives) do
    if d.name == name then return d.value end
  end
end

local function replaced(block, line)
  for _, d in ipairs(block.directives) do
    local from, to = d.value:match "^(.-)%s*=>%s*(.-)$"
    if d.name == "replace" then
      if not from then error(("line %d: replace: expected A => B"):format(block.line), 0) end
      local at, last = line:find(from, 1, true)
      if at then
        line, d.used = line:sub(1, at - 1) .. to .. line:sub(last + 1), true
      end
    end
  end
  return line
end

-- Globals that the test sets before a block.
local function given(block)
  local list = {}
  for _, d in ipairs(block.directives) do
    if d.name == "with" then
      if block.language ~= "lua" or not d.value:find "^[%a_][%w_]* = ." then
        error(("line %d: with: expected NAME = VALUE before a block of lua"):format(block.line), 0)
      end
      list[#list + 1] = d.value
    end
  end
  return #list > 0 and table.concat(list, "; ") or nil
end

-- A console block's typed lines, each with what should follow: steps of their own.
local function console_steps(block, add)
  local step
  for i, line in ipairs(block.lines) do
    local at = block.line + i
    local shell, typed, more = line:match "^%$ (.*)$", line:match "^> (.*)$", line:match "^>> (.*)$"
    if shell then
      step = add { kind = "sh", line = at, text = shell, want = "" }
    elseif typed then
      step = add { kind = "typed", line = at, text = typed, want = "" }
    elseif more then
      step.text = step.text .. "\n" .. more
    elseif step then
      step.want = step.want .. line .. "\n"
    else
      error(("line %d: expected $ or > first"):format(at), 0)
    end
  end
end

-- What a page's blocks ask to be done, in order: steps { kind, line, text, want }, and what is skipped { line, reason }.
function doc_blocks.plan(text)
  local steps, skipped, of = {}, {}, {}
  local function add(step)
    steps[#steps + 1] = step
    return step
  end
  for _, b in ipairs(doc_blocks.read(text)) do
    for i, line in ipairs(b.lines) do b.lines[i] = replaced(b, line) end
    for _, d in ipairs(b.directives) do
      if d.name == "replace" and not d.used then error(("line %d: nothing to replace: %s"):format(b.line, d.value), 0) end
    end
    local body, reason, file = table.concat(b.lines, "\n"), directive(b, "skip"), directive(b, "file")
    if reason then
      skipped[#skipped + 1] = { line = b.line, reason = reason }
    elseif file then
      add { kind = "file", line = b.line, text = body, name = file }
    elseif b.language == "text" and of[b.after] then
      of[b.after].want = body
    elseif b.language == "console" then
      console_steps(b, add)
    elseif RUN[b.language] then
      of[b] = add { kind = b.language, line = b.line, text = body, with = given(b) }
    else
      error(("line %d: a block of %s is neither run nor compared; say why: <!-- skip: reason -->"):format(b.line, b.language), 0)
    end
  end
  return steps, skipped
end

-- One chunk for a whole page, so that a block sees the locals of those before it. Its lines are the page's own, which makes
-- errors name them; __doc(i) at a block's fence begins step i, __typed shows an expression as the prompt does.
function doc_blocks.chunk(steps)
  local lines, last = {}, 0
  local function put(n, text)
    lines[n] = (lines[n] or "") .. text
    last = math.max(last, n)
  end
  for i, s in ipairs(steps) do
    put(s.line, ("__doc(%d) "):format(i) .. (s.with or ""))
    if s.kind == "lua" then
      local n = s.line
      for line in (s.text .. "\n"):gmatch "(.-)\n" do
        n = n + 1
        put(n, line)
      end
    elseif s.kind == "typed" then
      local expression = load("return " .. s.text)
      put(s.line, expression and ("__typed(function() return %s end)"):format(s.text) or (s.text:gsub("\n", " ")))
    end
  end
  for n = 1, last do lines[n] = lines[n] or "" end
  return table.concat(lines, "\n") .. "\n__doc()"
end

return doc_blocks
