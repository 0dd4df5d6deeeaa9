-- What the Lua parts share: files, quoting, Ctrl-C's words, option tables.
local sluice = require "sluice"
local disk = require "sluice.disk"
local fields = require "sluice.fields"
local files = require "files"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local quote = require "sluice.quote"
local text_width = require "sluice.text_width"

local dir

setup(function() dir = files.temporary() end)

teardown(function() os.execute("rm -r " .. dir) end)

describe("files", function()
  it("are read whole, and folders are no files", function()
    files.write(dir .. "/a", "x\0y")
    assert.equal("x\0y", disk.read(dir .. "/a"))
    local text, message = disk.read(dir)
    assert.equal(nil, text)
    assert.truthy(message:find(dir, 1, true), message)
    assert.equal(nil, (disk.read(dir .. "/none")))
    assert.same({ "a/b", "/", "." }, { disk.folder_of "a/b/c", disk.folder_of "/c", disk.folder_of "c" })
  end)

  it("hold records, a line each, whatever the numbers", function()
    local path = dir .. "/m.jsonl"
    disk.append(path, { step = 1, loss = 1 / 0, bins = { 0.5, 1e300 * 1e300 } })
    disk.append(path, { step = 2, loss = 0.5 })
    disk.append(path, { step = 3 })
    local f <close> = assert(io.open(path, "a"))
    f:write('3\n{"step":'):flush()
    local steps = {}
    for record in disk.records(disk.read(path)) do steps[#steps + 1] = record.step end
    assert.same({ 1, 2, 3 }, steps)
    assert.equal(2, disk.last_record(path, "loss").step)
    assert.equal(nil, disk.last_record(dir .. "/none", "loss"))
    assert.error_matches(function() disk.append("/dev/full", { step = 1 }) end, "/dev/full: No space left")
  end)

  it("say why a folder takes none", function()
    assert.equal(nil, disk.obstacle(dir))
    assert.equal("/proc: cannot write: No such file or directory", disk.obstacle "/proc")
    assert.equal(nil, (io.open(dir .. "/.writable")))
  end)
end)

describe("quoting", function()
  it("gives words back that a shell reads as they were", function()
    for _, word in ipairs { "runs/a-1", "it's", 'a "b" $c `d` \\', "", "*", "-x y", "é", "a\nb", "~", "=x" } do
      local pipe = assert(io.popen("printf '%s.' " .. quote.shell(word)))
      local got = pipe:read "a"
      pipe:close()
      assert.equal((word:match "^%-" and "./" or "") .. word .. ".", got)
    end
    assert.equal("runs/digits-0001", quote.shell "runs/digits-0001")
  end)

  it("gives strings of Lua on one line", function()
    for _, text in ipairs { "a", 'it\'s "b"', "a\nb\\", "é\0" } do
      assert.equal(text, load("return " .. quote.lua(text))())
      assert.falsy(quote.lua(text):find "\n")
    end
  end)
end)

it("a Ctrl-C is told from messages that have the word", function()
  for _, text in ipairs { "interrupted", "input 3:1: interrupted", "a.lua:1: b.lua:2: interrupted!", "interrupted after step 3 of 5" } do
    assert.truthy(interrupt.is(text), text)
  end
  for _, fault in ipairs { "/home/me/interrupted/a.lua:3: oh", "runs/interrupted is not there", "interruptedly", {}, "a: interrupted" } do
    assert.falsy(interrupt.is(fault), tostring(fault))
  end
end)

it("option tables are merged and their names are found", function()
  assert.same({ a = 1, b = 3, c = 4 }, fields.merged({ a = 1, b = 2 }, nil, { b = 3, c = 4 }))
  assert.same({ "a", "b" }, fields.keys { b = 1, a = 2 })
  assert.equal('; did you mean "steps"?', fields.hint("stpes", { "n", "steps" }))
  assert.equal("; there are: n, steps", fields.hint("zzzzzzz", { "n", "steps" }))
  assert.equal("f32 [2,3]", fields.what(sluice.zeros { 2, 3 }))
end)

it("text is cut at whole characters", function()
  assert.same({ 3, 2 }, { text_width.of "aé…", text_width.of "\xff\xfe" })
  assert.same({ "aé", "aé…", "\xff" }, { text_width.cut("aé…", 2), text_width.cut("aé…", 3), text_width.cut("\xff\xfe", 1) })
end)

it("seconds are written as people do", function()
  assert.same({ "0:00", "1:05", "1:00:00" }, { progress.clock(0.2), progress.clock(64.6), progress.clock(3600) })
end)
