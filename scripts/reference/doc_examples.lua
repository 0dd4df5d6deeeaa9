-- Runs every @example in a state and a folder of its own; what print shows on a line that ends in --> must be what stands there.
local doc_areas = require "doc_areas"

local doc_examples = {}

-- Put before an example: print notes on which line it was called.
local PRELUDE = [[
local sluice, shown, show = require "sluice", {}, print
local function print(...)
  local words = table.pack(...)
  for i = 1, words.n do words[i] = tostring(words[i]) end
  local line = debug.getinfo(2, "l").currentline
  shown[line] = (shown[line] and shown[line] .. " " or "") .. table.concat(words, " ")
end
local function finish() for line, text in pairs(shown) do show(("%d\t%s"):format(line, (text:gsub("%s+", " ")))) end end
]]

local function read_all(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  return pipe:close(), text
end

local function write(path, text)
  local f <close> = assert(io.open(path, "w"))
  assert(f:write(text))
end

-- Lines of the example's own -> what they must show.
local function expected(code)
  local list, number = {}, 0
  for line in (code .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    list[number] = line:match "%-%->%s*(.-)%s*$"
  end
  return list
end

local function matches(want, got)
  local start = want:match "^(.-)%s*…$"
  if start then return got:sub(1, #start) == start end
  return want == got
end

local function compare(e, code, offset, text, fault)
  local shown = {}
  for line, what in text:gmatch "(%d+)\t([^\n]*)" do shown[tonumber(line) - offset] = what:gsub("%s+$", "") end
  for line, want in pairs(expected(code)) do
    local got = shown[line] or "nothing"
    if not matches(want, got) then fault('%s: its example (%s:%d) shows "%s", not "%s"', e.name, e.file, e.line, got, want) end
  end
end

local function run(e, setup, program, dir, fault)
  local before = ("%s%s\n"):format(PRELUDE, setup or "")
  local _, offset = before:gsub("\n", "")
  write(dir .. "/example.lua", before .. e.example .. "\nfinish()\n")
  local ok, text = read_all(("cd '%s' && '%s' run example.lua"):format(dir, program))
  if not ok then return fault("%s: its example (%s:%d) fails: %s", e.name, e.file, e.line, text:match "^[^\n]*" or "") end
  compare(e, e.example, offset, text, fault)
end

-- A new folder, from which the source folder's data/, models/ and recipes/ are seen.
function doc_examples.workplace(root)
  local dir = os.tmpname()
  assert(os.remove(dir))
  assert(os.execute(("mkdir '%s' && cd '%s' && ln -s '%s'/data '%s'/models '%s'/recipes ."):format(dir, dir, root, root, root)))
  return dir
end

function doc_examples.remove(dir)
  os.execute(("rm -r '%s'"):format(dir))
end

-- Returns how many were run.
function doc_examples.check(source, root, program, fault)
  local setups, count = {}, 0
  for _, e in ipairs(source.entries) do
    if e.kind == "class" then setups[doc_areas.receiver(e.name)] = e.setup end
  end
  for _, e in ipairs(source.entries) do
    if e.example then
      local dir = doc_examples.workplace(root)
      run(e, e.kind == "class" and e.setup or setups[e.name:match "^(%l[%w_]*)[:.]"], program, dir, fault)
      doc_examples.remove(dir)
      count = count + 1
    end
  end
  return count
end

return doc_examples
