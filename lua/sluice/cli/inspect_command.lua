-- sluice inspect
local arguments = require "sluice.cli.arguments"
local core = require "sluice.core"
local fields = require "sluice.fields"
local made = require "sluice.made"
local quote = require "sluice.quote"
local run_folder = require "sluice.run_folder"
local sluice = require "sluice"

local say = arguments.say

local function declare(p)
  p:argument("file", "a .png, .safetensors, .npz, .npy or a pack; of a run's folder the newest checkpoint")
  arguments.json_flag(p)
end

local function inspect_pack(path, json)
  local d = sluice.data.pack(path)
  local labels = {}
  for i = 1, #d do
    local _, label = d:get(i)
    if label then labels[label] = (labels[label] or 0) + 1 end
  end
  local names, counts = d:names(), {}
  for k = 0, d:classes() - 1 do counts[k + 1] = labels[k] or 0 end
  if json then
    return arguments.say_json { kind = "pack", images = #d, shape = d:shape(), digest = d:digest(), note = d:note(), names = names,
      counts = counts }
  end
  say("%d images u8 [%s], digest %s", #d, table.concat(d:shape(), ","), d:digest())
  if d:note() ~= "" then say("# %s", d:note()) end
  for k, n in ipairs(counts) do say("class %d%s: %d", k - 1, names and names[k] and " " .. names[k] or "", n) end
end

local function say_again(record, path)
  if record and record.again then say("It cannot be made again: %s.", record.again) end
  if record and not record.again then say("Made again by: sluice sample --again %s", quote.shell(path)) end
end

local function inspect_picture(path, json)
  local shape, text = sluice.load_image(path):shape(), sluice.png_text(path)
  local record = text.sluice and made.read(path)
  if json then
    return arguments.say_json { kind = "png", width = shape[3], height = shape[2], text = text, sluice = record or nil }
  end
  say("PNG %d x %d", shape[3], shape[2])
  for _, key in ipairs(fields.keys(text)) do say("# %s: %s", key, text[key]) end
  say_again(record, path)
end

local function shorten(value)
  return #value > 300 and value:sub(1, 300) .. (" … (%d bytes)"):format(#value) or value
end

local function inspect_tensors(path, json)
  local tensors, meta = sluice.io.load(path)
  if not tensors then arguments.fail(meta) end
  local rows, total = {}, 0
  for i, name in ipairs(fields.keys(tensors)) do
    local t = tensors[name]
    local n = 1
    for _, d in ipairs(t:shape()) do n = n * d end
    total = total + n
    rows[i] = { name = name, dtype = t:dtype(), shape = t:shape() }
  end
  local record = path:match "%.npz$" and tensors.sluice and made.read(path) or nil
  if json then return arguments.say_json { kind = "tensors", metadata = meta, tensors = rows, elements = total, sluice = record } end
  for _, key in ipairs(fields.keys(meta or {})) do say("# %s: %s", key, shorten(meta[key])) end
  for _, row in ipairs(rows) do say("%-56s %-5s [%s]", row.name, row.dtype, table.concat(row.shape, ",")) end
  say("%d tensors, %s elements", #rows, core.thousands(total))
  if record then say("# Description: %s", made.describe(record)) end
  say_again(record, path)
end

-- What a file of a kind begins with; tensor files have several kinds of their own.
local BEGINNINGS = { ["SLUICEPK"] = inspect_pack, ["\137PNG\r\n\26\n"] = inspect_picture }

-- Of a run's folder the newest checkpoint.
local function file_of(path)
  if not run_folder.is_run(path) then return path end
  local newest = run_folder.open(path):checkpoints()[1]
  return newest and newest.path or arguments.fail(path .. " has no checkpoint yet")
end

local function run(o)
  o.file = file_of(o.file)
  local f <close>, message = io.open(o.file, "rb")
  if not f then arguments.fail(message) end
  local kind = BEGINNINGS[f:read(8)] or inspect_tensors
  kind(o.file, o.json)
end

return {
  summary = "Lists what is in a tensor file or a pack, and how a picture was made.", declare = declare, run = run,
  examples = { "sluice inspect models/digits.safetensors", "sluice inspect samples.png" },
}
