-- sluice sample --again FILE: what a picture says of how it was made, and whether it can be made the same.
local arguments = require "sluice.cli.arguments"
local core = require "sluice.core"
local fields = require "sluice.fields"
local made = require "sluice.made"
local progress = require "sluice.progress"
local quote = require "sluice.quote"

local fail = arguments.fail

local again = {}

-- The record in a picture or an .npz.
function again.read(path)
  local record, message = made.read(path)
  if not record then fail("--again: " .. message) end
  if record.again then fail(("--again %s: it cannot be made again: %s"):format(path, record.again)) end
  return record
end

-- Where its checkpoint was.
function again.source(record, path)
  local c = record.checkpoint
  if core.exists(c.path) then return c.path end
  fail(("--again %s: it was made with %s (step %d, %s), which is not here; if it is elsewhere now: sluice sample CHECKPOINT --again %s")
    :format(path, c.path, c.step, c.digest, quote.shell(path)))
end

local function warn(format, ...)
  progress.warn(format:format(...))
end

local function check_files(record, o)
  for name, file in pairs(record.files or {}) do
    if o[name] == nil then
      if not core.exists(file.path) then
        fail(("--again: %s was %s, which is not here; if it is elsewhere now: --%s FILE"):format(name, file.path, name))
      end
      if made.file(file.path).digest ~= file.digest then
        fail(("--again: %s was %s, which holds something else now; to use it nevertheless: --%s %s"):format(name, file.path, name,
          quote.shell(file.path)))
      end
    end
  end
end

-- What the same bits would need: the checkpoint (refused unless it was named), the files, the machine.
function again.check(record, loaded, o)
  local was, is = record.checkpoint, loaded.checkpoint
  if was.digest ~= is.digest then
    local text = ("%s is not the checkpoint that made %s: %s, expected %s"):format(is.path, o.again, is.digest, was.digest)
    if not o.source then
      fail(("%s; to use it nevertheless: sluice sample %s --again %s"):format(text, quote.shell(is.path), quote.shell(o.again)))
    end
    warn("%s; the images may differ", text)
  end
  check_files(record, o)
  local here = core.machine(o.device or loaded.model:device())
  here.version = here.sluice
  local then_ = fields.merged({ version = record.version }, record.machine)
  for _, k in ipairs { "version", "device", "cpu", "kernels", "onednn" } do
    if then_[k] ~= here[k] then warn("it was made with %s %s, here is %s: bits may differ", k, tostring(then_[k]), tostring(here[k])) end
  end
end

-- The record's settings, as options of sluice.sample.
function again.settings(record)
  return fields.merged({ ema = record.ema }, record.sample)
end

return again
