-- sluice run doc_page.lua PAGE: runs a page's blocks in the current folder and compares what they print.
-- Prints "skipped LINE reason" for each block that is not run; ends with an error at the first that is not as the page says.
local folder = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = folder .. "/?.lua;" .. package.path
local doc_blocks, doc_text = require "doc_blocks", require "doc_text"

local page = arg[1]
local file <close> = assert(io.open(page))
local steps, skipped = doc_blocks.plan(file:read "a")
local show, current, printed, by_line = print, nil, {}, {}

local function fail(line, text)
  error(("%s:%d: %s"):format(page, line, text), 0)
end

local function compare(line, want, got)
  if not doc_text.matches(want, got) then
    fail(line, ("the page shows\n%s\nbut there is\n%s"):format(want, got))
  end
end

-- Texts after --> on the lines of a Lua block.
local function inline(step)
  local line = step.line
  for text in (step.text .. "\n"):gmatch "(.-)\n" do
    line = line + 1
    local want = text:match "%-%->%s*(.*)$"
    if want then compare(line, want, by_line[line] or "") end
  end
end

local function finish(step)
  if step.want then compare(step.line, step.want, table.concat(printed)) end
  if step.kind == "lua" then inline(step) end
  printed, by_line = {}, {}
end

local function write(name, text)
  local out <close> = assert(io.open(name, "w"))
  assert(out:write(text, "\n"))
end

local function shell(step)
  write(".doc.sh", step.text)
  local pipe = assert(io.popen "bash -e -o pipefail .doc.sh 2>&1")
  local text = pipe:read "a"
  local ok, _, code = pipe:close()
  if not ok and step.want == nil then fail(step.line, ("exit status %s\n%s"):format(code, text)) end
  if step.want and not step.want:find("/s  ", 1, true) then -- on a slow machine a command tells how far it is
    text = text:gsub("%d+/%d+  [^\n]*%w/s  [^\n]*\n", "")
  end
  printed[1] = text
end

local function keep(text)
  local at = debug.getinfo(3, "l").currentline
  printed[#printed + 1] = text
  by_line[at] = (by_line[at] or "") .. text
end

function print(...) -- luacheck: ignore
  local parts = table.pack(...)
  for i = 1, parts.n do parts[i] = tostring(parts[i]) end
  keep(table.concat(parts, "\t") .. "\n")
end

function io.write(...) -- luacheck: ignore
  keep(table.concat({ ... }))
  return io.stdout
end

function __doc(i) -- luacheck: ignore
  if current then finish(steps[current]) end
  current = i
  local step = steps[i]
  if not step then return end
  if step.kind == "sh" then shell(step) end
  if step.kind == "file" then write(step.name, step.text) end
end

function __typed(f) -- luacheck: ignore
  local result = table.pack(pcall(f))
  if not result[1] then
    printed[#printed + 1] = tostring(result[2]):gsub("^[^\n]-:%d+: ", "")
  elseif result.n > 1 then
    print(table.unpack(result, 2, result.n))
  end
end

for _, s in ipairs(skipped) do show(("skipped %d %s"):format(s.line, s.reason)) end
assert(load(doc_blocks.chunk(steps), "@" .. page))()
show(("ran %d"):format(#steps))
