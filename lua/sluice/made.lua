-- How images were made: every setting that their bits depend on, as text that a picture carries, and back.
local core = require "sluice.core"
local disk = require "sluice.disk"
local fields = require "sluice.fields"
local sluice = require "sluice"

local json = sluice.json

local FORMAT = "sluice-picture-1"

--- sluice.Made
--- How images were made: the third result of sluice.sample.
---@field seed integer  that they were drawn with
---@field kept? table  with keep: `x0` (or `x`), [m,n,C,H,W]; `steps` and `t`, lists of m
---@field record table  every setting that their bits depend on, as made:text() writes it
---@setup
---local loaded = sluice.load "models/digits.safetensors"
---local images, labels, made = loaded:sample { n = 2, sampler = "ddim", steps = 2, seed = 5 }
---@example print(made.seed)  --> 5
local Made = { __name = "sluice.Made" }
Made.__index = Made

local made = {}

local TENSORS = { "noise", "init", "mask" }

-- Why the images cannot be made again from their record, or nil.
local function obstacle(o, origin)
  if not origin then return "the model was not sampled through the checkpoint it was loaded from, as sluice.load(path):sample {…} does" end
  if type(o.sampler) == "function" then return "the sampler was a function of the calling program" end
  for _, name in ipairs(TENSORS) do
    if o[name] ~= nil and not (origin.files and origin.files[name]) then
      return ("%s was a tensor of the calling program, not a file"):format(name)
    end
  end
  if o.on_step then return "on_step, a function of the calling program, was called between the steps" end
  return origin.obstacle
end

local function sampler_text(f)
  if type(f) ~= "function" then return f end
  local info = debug.getinfo(f, "S")
  return ("a function, %s:%d"):format(info.short_src, info.linedefined)
end

-- The labels as they were asked for: a word, or the classes.
local function labels_of(o, r)
  return type(o.labels) == "string" and o.labels or r.labels
end

-- What sluice.sample's third result is. o: the options; r: the same, resolved; origin: where the model comes from, if that is known:
-- checkpoint = { path, digest, step, dtype, recipe }, ema (a name), files = { init = { path, digest } … }, obstacle, stop.
function made.new(o, r, origin)
  local record = {
    format = FORMAT, version = sluice.version, checkpoint = origin and origin.checkpoint, ema = origin and origin.ema,
    sample = {
      n = r.n, labels = labels_of(o, r), cfg = r.cfg, cfg_channels = o.cfg_channels, cfg_interval = o.cfg_interval,
      sampler = sampler_text(r.own) or r.kind, steps = o.steps, eta = r.eta, clip = r.clip, seed = r.seed, batch = r.batch,
      start = o.start, precision = o.precision, keep = o.keep,
    },
    taken = r.start > 0 and r.start or r.diffusion.steps, files = origin and origin.files, again = obstacle(o, origin),
  }
  local machine = core.machine(r.model:device())
  record.machine = { cpu = machine.cpu, kernels = machine.kernels, onednn = machine.onednn, device = machine.device }
  return setmetatable({ seed = r.seed, kept = r.keep and r.keep:result(r.n), record = record }, Made)
end

local function classes(labels)
  if labels == nil then return "without labels" end
  if type(labels) == "string" then return labels .. " classes" end
  local seen, list = {}, {}
  for _, k in ipairs(labels) do
    if not seen[k] then list[#list + 1] = tostring(k) end
    seen[k] = true
  end
  if #list > 12 then return ("%d classes"):format(#list) end
  return (#list == 1 and "class " or "classes ") .. table.concat(list, ", ")
end

-- The record in a sentence, for people.
function made.describe(record)
  local s, c = record.sample, record.checkpoint
  local parts = { ("%d image%s, %s"):format(s.n, s.n > 1 and "s" or "", classes(s.labels)) }
  local function add(...) parts[#parts + 1] = string.format(...) end
  add("sampler %s, %d steps%s", s.sampler, record.taken, s.eta ~= 0 and (", eta %g"):format(s.eta) or "")
  if s.cfg ~= 1 then
    add("guidance %g%s", s.cfg, s.cfg_interval and (" at timesteps %g to %g"):format(s.cfg_interval[1], s.cfg_interval[2]) or "")
  end
  add("seed %d", s.seed)
  for _, name in ipairs(TENSORS) do
    if record.files and record.files[name] then add("%s %s", name, record.files[name].path) end
  end
  if c then
    add("%s%s, step %d, %s", c.recipe and ("recipe %s, "):format(c.recipe) or "", c.path, c.step, c.digest)
    add("weights %s", record.ema == "none" and "as trained" or "EMA " .. tostring(record.ema))
  end
  return table.concat(parts, "; ") .. ". Sluice " .. record.version .. "."
end

--- made:text(layout?) -> table
--- How the images were made, for the `text` of sluice.save_png: `sluice`, one JSON object, and `Description`, a sentence. `sluice inspect`
--- shows it, and `sluice sample --again FILE` makes the picture anew.
---@param layout? table  how the picture is laid out (columns, quant, pad, scale of sluice.save_png), so that it can be made the same
---@return table  { sluice =, Description =, Software = }
---@example sluice.save_png("out.png", images, { columns = 4, text = made:text { columns = 4 } })
function Made:text(layout)
  local record = fields.merged(self.record, { layout = layout })
  return { sluice = json.encode(record), Description = made.describe(record), Software = "Sluice " .. sluice.version }
end

--- made:save(path, images, options?)
--- Writes a picture of the images as sluice.save_png does, with how they were made in its text, the layout included.
---@param path string  of the PNG
---@param images sluice.Tensor  what sluice.sample gave, or some of them
---@param options? table  of sluice.save_png; its `text` is added, and may replace Description and Software
---@example made:save("out.png", images, { columns = 2 })
function Made:save(path, images, options)
  if getmetatable(self) ~= Made then error("save: it is called with a colon, as in made:save(path, images)", 2) end
  for what, v in pairs { options = options or {}, text = type(options) == "table" and options.text or {} } do
    if type(v) ~= "table" then error(("save: %s is %s, expected a table"):format(what, fields.what(v)), 2) end
  end
  local layout, text = fields.merged(options), options and options.text
  layout.text = nil
  local own = self:text(layout)
  sluice.save_png(path, images, fields.merged(layout, { text = fields.merged(own, text, { sluice = own.sluice }) }))
end

-- At the prompt and in print: the sentence; the fields are for those who ask.
function Made:__tostring()
  return made.describe(self.record)
end

-- The text in a picture, or in an .npz as bytes.
local function text_in(path)
  if not path:match "%.npz$" then return sluice.png_text(path).sluice end
  local tensors, message = sluice.io.load(path)
  if not tensors then error(message, 0) end
  local bytes = tensors.sluice
  return bytes and bytes:dtype() == "u8" and #bytes:shape() == 1 and string.char(table.unpack(bytes:totable())) or nil
end

-- Whether what was read has what a record always has; a picture may come from anywhere.
local function is_record(r)
  if type(r) ~= "table" or type(r.sample) ~= "table" or type(r.version) ~= "string" then return false end
  for _, k in ipairs { "n", "cfg", "eta", "seed" } do
    if type(r.sample[k]) ~= "number" then return false end
  end
  for _, t in ipairs { r.machine or {}, r.layout or {}, r.files or {}, r.sample.cfg_interval or {} } do
    if type(t) ~= "table" then return false end
  end
  for _, file in pairs(r.files or {}) do
    if type(file) ~= "table" or type(file.path) ~= "string" then return false end
  end
  local c = r.checkpoint
  local whole = type(c) == "table" and type(c.path) == "string" and type(c.digest) == "string" and math.type(c.step) == "integer"
  return type(r.taken) == "number" and type(r.sample.sampler) == "string" and (whole or (c == nil and type(r.again) == "string"))
end

-- The record in a picture or an .npz, or nil and why there is none.
function made.read(path)
  local text = text_in(path)
  if not text then return nil, ("%s does not say how it was made: it has no text sluice"):format(path) end
  local ok, record = pcall(json.decode, text)
  if not ok or not is_record(record) then return nil, ("%s: its text sluice is damaged"):format(path) end
  if record.format ~= FORMAT then
    return nil, ("%s: its text sluice has format %s, this version reads %s"):format(path, tostring(record.format), FORMAT)
  end
  return record
end

-- { path, digest } of a file whose contents a picture depends on.
function made.file(path)
  local text, message = disk.read(path)
  if not text then error(message, 0) end
  return { path = path, digest = "xxh3:" .. core.digest(text) }
end

return made
