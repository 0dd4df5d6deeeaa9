-- sluice sample
local again = require "sluice.cli.again"
local arguments = require "sluice.cli.arguments"
local checkpoint = require "sluice.checkpoint"
local core = require "sluice.core"
local fields = require "sluice.fields"
local made = require "sluice.made"
local sample_fields = require "sluice.sample_fields"
local sluice = require "sluice"

local fail = arguments.fail

local CONVERTERS = {
  integer = arguments.integer, number = arguments.number, boolean = arguments.boolean, interval = arguments.interval,
}

local function declare(p)
  p:argument("source", "a run's folder or a checkpoint"):args "?"
  p:option("-n", "how many images"):argname("N"):convert(arguments.integer)
  p:option("--class", "one class for all of them"):argname("K"):convert(arguments.integer)
  p:option("--labels", "balanced, uniform, or classes: 207,360"):argname("LABELS")
  p:option("-o --output", "out.png or out.npz (samples.png)"):argname("FILE")
  p:option("--columns", "of the picture"):argname("N"):convert(arguments.integer)
  p:option("--again", "the images of FILE, a picture or .npz of this command, anew; options change what they say"):argname("FILE")
  for _, field in ipairs(sample_fields) do
    if field.option then
      local option = p:option("--" .. field[1], field.text)
      if field.choices then
        arguments.choice(option, field.choices)
      else
        option:argname(field.arg):convert(CONVERTERS[field.option] or tostring)
      end
    end
  end
  arguments.recipe_option(p)
  arguments.machine_options(p)
  p:flag("--quiet", "no progress line")
  arguments.json_flag(p)
end

-- [1,H,W] of [3,H,W]: the same numbers where all three are.
local function grey(image)
  local r, g, b = image:slice(1, 1, 1), image:slice(1, 2, 2), image:slice(1, 3, 3)
  if (r - g):abs():max():item() == 0 and (r - b):abs():max():item() == 0 then return r end
  return r * 0.299 + g * 0.587 + b * 0.114
end

-- Images of an option: a picture, or a tensor file that holds one tensor [N,C,H,W]; channels: of the model.
local function images_from(path, key, channels)
  if path:match("%.png$") then
    local image = sluice.load_image(path)
    if channels == 1 then image = grey(image) end
    return image:reshape { 1, table.unpack(image:shape()) }
  end
  local tensors, message = sluice.io.load(path)
  if not tensors then fail(message) end
  local name, t = next(tensors)
  if not t or next(tensors, name) then fail(("--%s %s: expected a file with one tensor"):format(key, path)) end
  return t:to("f32")
end

-- --labels balanced, uniform, or classes: 207,360
local function labels_of(text)
  if not text:match("^[%d,%s]+$") then return text end
  local list = {}
  for word in text:gmatch("%d+") do list[#list + 1] = math.tointeger(tonumber(word)) end
  return list
end

-- Options that contradict each other, or would change nothing. output: where the images go
local function check_together(o, output)
  if o.class and o.labels then fail("--class and --labels both say which classes; give one of them") end
  if o.columns and o.columns < 1 then fail(("--columns %d: expected at least 1"):format(o.columns)) end
  if o.columns and output:match "%.npz$" then fail(("--columns is of a picture; -o %s has none"):format(output)) end
end

-- The same of options with what is stored; all: of sluice.sample
local function check_effect(o, all)
  if o.eta and o.eta ~= 0 and all.sampler ~= "ddim" then
    fail(("--eta %g is of ddim, the sampler is %s; give --sampler ddim too"):format(o.eta, tostring(all.sampler or "ddpm")))
  end
  for _, name in ipairs { "cfg_interval", "cfg_channels" } do
    if o[name] and (all.cfg or 1) == 1 then fail(("--%s: there is no guidance; give --cfg SCALE too"):format(name)) end
  end
end

-- What the options say over `settings` (a checkpoint's, or those of a picture to be made again). -> options of sluice.sample, and the
-- files among them: { init = { path, digest } … }
local function options_of(o, settings, files, channels)
  local all, used = fields.merged(settings), {}
  for _, name in ipairs(sample_fields.names "option") do
    if o[name] ~= nil then all[name] = o[name] end
  end
  for _, field in ipairs(sample_fields) do
    local name = field[1]
    local path = field.option == "images" and (o[name] or (files and files[name] and files[name].path))
    if path then
      used[name] = made.file(path)
      all[name] = images_from(path, name, channels)
    end
  end
  if o.n then
    all.n = o.n
    if type(all.labels) == "table" then all.labels = "balanced" end
  end
  if o.class then all.labels = o.class end
  if o.labels then all.labels = labels_of(o.labels) end
  if type(all.labels) == "table" and not o.n then all.n = nil end
  all.device, all.columns = o.device, nil
  check_effect(o, all)
  return all, next(used) and used or nil
end

-- The images kept on the way and the last of each, a row for each image; how many are in a row.
local function strips(images, kept, steps)
  local all = kept.x0
  if kept.steps[#kept.steps] ~= steps then all = core.join { all, images:reshape { 1, table.unpack(images:shape()) } } end
  local shape = all:shape()
  return all:permute { 2, 1, 3, 4, 5 }:contiguous():reshape { -1, shape[3], shape[4], shape[5] }, shape[1]
end

local function bytes_of(images)
  local order = #images:shape() == 5 and { 1, 2, 4, 5, 3 } or { 1, 3, 4, 2 }
  return images:add(1):mul(127.5):clamp(0, 255):to("u8"):permute(order):contiguous()
end

-- ADM's .npz, with how it was made as bytes beside it.
local function write_npz(path, images, labels, info)
  local text = info:text()
  local tensors = { arr_0 = bytes_of(images), arr_1 = labels, sluice = sluice.tensor({ text.sluice:byte(1, -1) }, { dtype = "u8" }) }
  if info.kept then
    tensors.kept, tensors.kept_t = bytes_of(info.kept.x0), sluice.tensor(info.kept.t, { dtype = "i64" })
  end
  checkpoint.write(path, tensors)
end

local function write_images(path, images, labels, info, columns)
  if path:match("%.npz$") then return write_npz(path, images, labels, info) end
  local in_row
  if info.kept then images, in_row = strips(images, info.kept, info.record.taken) end
  local layout = { columns = columns or in_row }
  sluice.save_png(path, images, { columns = layout.columns, text = info:text(layout) })
end

-- The progress line, fed after each step of each batch; in a log only for what takes long.
local function watch(o)
  local line, began, tty = nil, core.clock(), core.isatty()
  return function(s, first, count, n)
    if not tty and core.clock() - began < 10 then return end
    line = line or require("sluice.progress").new { total = n, now = core.clock, start = began, tty = tty, quiet = o.quiet }
    local done = math.min(n, math.floor(first + count * s.i / s.n))
    line:update(done, ("step %d/%d"):format(s.i, s.n))
    if s.i == s.n and first + count >= n then line:finish() end
  end
end

local function run(o)
  local record = o.again and again.read(o.again)
  local source = o.source or (record and again.source(record, o.again))
  if not source then fail("sample: which run or checkpoint? sluice sample RUN|CHECKPOINT, or sluice sample --again FILE") end
  local output = o.output or "samples.png"
  check_together(o, output)
  arguments.check_output("-o", output, { ".png", ".npz" })
  arguments.use_machine(o)
  local loaded = sluice.load(source, { recipe = o.recipe })
  if record then again.check(record, loaded, o) end
  local settings = record and again.settings(record) or loaded.sample
  local options, files = options_of(o, settings, record and record.files, loaded.model:info().in_channels)
  local images, labels, info = checkpoint.sample(loaded, {}, options, { files = files, stop = watch(o) })
  write_images(output, images, labels, info, o.columns or (record and record.layout and record.layout.columns)
    or (not info.kept and loaded.sample.columns) or nil)
  if not o.json then return arguments.say("%s: %s", output, arguments.count(#images, "image")) end
  arguments.say_json { output = output, images = #images, seed = info.seed, checkpoint = loaded.checkpoint,
    labels = labels and labels:totable() or nil }
end

return {
  summary = "Draws images from a run or a checkpoint, with its own settings and EMA where none are given.", declare = declare, run = run,
  examples = {
    "sluice sample runs/mine -n 16 --class 7 --cfg 2 -o sevens.png",
    "sluice sample models/digits.safetensors -n 8 --keep 6 -o on-the-way.png",
    "sluice sample --again sevens.png -o the-same.png", "sluice sample other.safetensors --again sevens.png -o by-another-model.png",
  },
}
