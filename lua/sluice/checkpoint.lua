-- Checkpoints: one .safetensors file that holds weights, averages, optimizer and tables, and in its metadata everything needed to
-- use them and to go on. A digest of the whole file is checked whenever it is read.
local core = require "sluice.core"
local fields = require "sluice.fields"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local sluice = require "sluice"

local json = sluice.json

local FORMAT = "sluice-checkpoint-1"
local checkpoint = {}

local function add_all(tensors, prefix, parts, dtype)
  for name, t in pairs(parts) do tensors[prefix .. name] = dtype and t:to(dtype) or t end
end

local function decay_text(decay)
  return (("%.10g"):format(decay):gsub("[^%w+-]+", ".")) -- a point, whatever the locale
end

-- s: model, diffusion, weights (flat), and what there is of: ema { {decay, weights} … }, exp_avg, exp_avg_sq (flat), weight (list over
-- t), step, seconds, seed, batch, sample, parameters, settings, recipe (text). dtype: of the weights in the file, "f32".
function checkpoint.save(path, s, dtype)
  local tensors, decays = {}, {}
  dtype = dtype ~= "f32" and dtype or nil
  add_all(tensors, "model.", s.model:parts(s.weights), dtype)
  for i, e in ipairs(s.ema or {}) do
    decays[i] = decay_text(e.decay)
    add_all(tensors, "ema." .. decays[i] .. ".", s.model:parts(e.weights), dtype)
  end
  for _, k in ipairs { "exp_avg", "exp_avg_sq" } do
    if s[k] then add_all(tensors, "optimizer." .. k .. ".", s.model:parts(s[k])) end
  end
  for i, mask in ipairs(s.model:tables()) do tensors["tables.mask." .. i - 1] = mask end
  if s.weight then tensors["tables.weight"] = sluice.tensor(s.weight) end
  local process, betas = s.diffusion:describe()
  if betas then tensors["tables.betas"] = betas end
  local step = s.step or 0
  local meta = {
    format = FORMAT, version = sluice.version, step = tostring(step), ema = json.encode(decays), digest = "",
    data_position = tostring(step * (s.batch or 0)), seed = tostring(s.seed or 0), seconds = json.encode(s.seconds or 0),
    architecture = json.encode(s.model:describe()), diffusion = json.encode(process),
    sample = json.encode(s.sample or {}), recipe = s.recipe or "", parameters = json.encode(s.parameters or {}),
    settings = json.encode(s.settings or {}), name = s.name,
  }
  checkpoint.write(path, tensors, meta)
end

-- Like sluice.io.save and load, but a file that cannot be opened is an error.
function checkpoint.write(path, tensors, meta)
  local ok, message = sluice.io.save(path, tensors, meta)
  if not ok then error(message, 0) end
end

local function read(path)
  local tensors, meta = sluice.io.load(path)
  if not tensors then error("sluice.load: " .. meta, 0) end
  -- Reading checks a digest that is there; damage must not make it disappear.
  if meta.format and not tostring(meta.digest):match "^xxh3:%x+$" then
    error(("sluice.load: %s: it is damaged: its digest is missing"):format(path), 0)
  end
  return tensors, meta
end

local function strip(tensors, prefix)
  local parts = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then parts[name:sub(#prefix + 1)] = t end
  end
  return parts
end

-- For blocks written in Lua: the model of a recipe, or of its file, with a checkpoint's parameters. No file but one that the user names
-- is run.
-- meta: the checkpoint's.
local function model_of_recipe(path, meta)
  local r = path
  if type(path) == "string" then
    r = require("sluice.code").load_recipe(path)
  else
    path = "the recipe"
  end
  local model = r:resolve(json.decode(meta.parameters)).model
  local settings = require "sluice.settings"
  local differ = settings.compare(settings.of_model(json.decode(meta.architecture)), settings.of_model(model:describe()))
  for _, line in ipairs(differ.refused) do
    if line:match "^model%.block:" then
      progress.warn(path .. ": the block's code is not what was trained")
    elseif not line:match "^model%.seed:" and not line:match "^model%.precision:" and not line:match "^model%.residual:" then
      error(("%s makes another model than the checkpoint's: %s"):format(path, line), 0)
    end
  end
  return model
end

-- The options of sluice.sample that stored settings and o, over them, make.
function checkpoint.sample_options(of, settings, o)
  local all = fields.merged({ model = of.model, diffusion = of.diffusion }, settings, o)
  if not sluice.is_tensor(all.ema) then all.ema = checkpoint.ema(of.ema, all.ema) end
  all.columns = nil
  local counted = o and (type(o.labels) == "table" or sluice.is_tensor(o.labels) or o.noise ~= nil)
  if counted and o.n == nil then all.n = nil end
  return all
end

-- The name of the weights `ema` among those of a checkpoint: a decay, or none; nil for others.
local function ema_name(list, ema)
  if ema == nil then return "none" end
  for _, e in ipairs(list) do
    if rawequal(e.weights, ema) then return decay_text(e.decay) end
  end
end

-- What sluice.sample's third result tells of where images come from. options: those of checkpoint.sample_options. of.checkpoint:
-- { path, digest, step, dtype, recipe }, or nil if what `of` holds is in no file.
function checkpoint.origin(of, options, more)
  local origin = { checkpoint = of.checkpoint, ema = ema_name(of.ema, options.ema) }
  if not of.checkpoint then
    origin.obstacle = "the weights were in no checkpoint then"
  elseif options.model ~= of.model or options.diffusion ~= of.diffusion then
    origin.obstacle = "model or diffusion were the calling program's, not the checkpoint's"
  elseif not origin.ema then
    origin.obstacle = "the weights were given by the calling program"
  end
  return fields.merged(origin, more)
end

-- What a caller gave as options.
function checkpoint.check_options(o, level)
  if o ~= nil and type(o) ~= "table" then
    error(("sample: options are %s, expected a table, as in { n = 4 }"):format(fields.what(o)), level)
  end
end

-- Samples with stored settings; o overrides. ema, in either: a decay, "none", or weights; else the first EMA. of: what has model,
-- diffusion and ema { {decay, weights} … }, and checkpoint (see origin).
function checkpoint.sample(of, settings, o, more)
  local options = checkpoint.sample_options(of, settings, o)
  return require("sluice.sample").run(options, checkpoint.origin(of, options, more))
end

-- What a checkpoint's file says of itself in its header; the rest is not read.
function checkpoint.header(path)
  local f <close>, message = io.open(path, "rb")
  if not f then error(message, 0) end
  local size = f:read(8)
  local text = size and #size == 8 and f:read(math.min((string.unpack("<I8", size)), 1 << 28))
  local ok, header = pcall(json.decode, text or "")
  if not ok or type(header) ~= "table" then return {} end
  return header.__metadata__ or {}
end

local function describe(path, meta, dtype)
  return { path = path, digest = meta.digest, step = math.tointeger(tonumber(meta.step)) or 0, dtype = dtype, recipe = meta.name }
end

-- of.checkpoint for a file that was just written.
function checkpoint.describe(path)
  return describe(path, checkpoint.header(path), "f32")
end

--- loaded:sample(options?) -> images, labels?
--- Draws with the stored settings and the first EMA. `loaded.sample` itself is the table of these settings.
--- @param options? table  what goes over the settings
--- @fields sluice.sample
--- @field model? sluice.Model  the checkpoint's
--- @field diffusion? sluice.Diffusion  the checkpoint's
--- @field ema? number|"none"|sluice.Tensor  a decay, "none" or weights; the first EMA
--- @return sluice.Tensor images
--- @return sluice.Tensor? labels
--- @example print(loaded:sample({ n = 2, steps = 2 }):shape()[1])  --> 2
local Settings = {
  __call = function(settings, loaded, o)
    if type(loaded) ~= "table" or getmetatable(loaded) == nil then
      error("sample: it is called with a colon, as in loaded:sample { n = 4 }", 2)
    end
    checkpoint.check_options(o, 3)
    return checkpoint.sample(loaded, settings, o)
  end,
}

--- sluice.Loaded
--- What a checkpoint holds, ready to sample.
--- @field model sluice.Model
--- @field diffusion sluice.Diffusion
--- @field ema {decay: number, weights: sluice.Tensor}[]
--- @field step integer  at which it was written
--- @field dtype string  of the weights in the file
--- @field meta table<string, string>  the file's metadata
--- @field path string  of the checkpoint
--- @setup local loaded = sluice.load "models/digits.safetensors"
--- @example print(loaded.model:info().classes, #loaded.ema)

-- The newest of a run's checkpoints that `read_one` can read; the damaged ones are named.
local function newest(folder, read_one)
  local list = folder:checkpoints()
  if #list == 0 then error(("%s has no checkpoint yet"):format(folder.dir), 0) end
  local faults = {}
  for i, c in ipairs(list) do
    local ok, result = pcall(read_one, c.path)
    if ok then
      if i > 1 then progress.warn(("%s; using %s, of step %d"):format(table.concat(faults, "; "), c.path, c.step)) end
      return result
    end
    if interrupt.is(result) then error(result, 0) end -- that is no damage
    faults[i] = tostring(result)
  end
  error(("%s: none of its %d checkpoints can be read: %s"):format(folder.dir, #list, table.concat(faults, "; ")), 0)
end

local Loaded = { __name = "sluice.Loaded" }

-- At the prompt and in print: a line; the fields are for those who ask.
function Loaded:__tostring()
  local decays = {}
  for i, e in ipairs(self.ema) do decays[i] = decay_text(e.decay) end
  return ("checkpoint %s: %s, %s parameters, step %d, EMA %s"):format(self.path, tostring(self.model):match "^[^:]*",
    core.thousands((self.model:count())), self.step, #decays > 0 and table.concat(decays, ", ") or "none")
end

-- Without what only another version knows, of which loading has warned.
local function known_settings(settings)
  local known = { columns = true }
  for _, name in ipairs(require("sluice.sample_fields").names "recipe") do known[name] = true end
  for _, key in ipairs(fields.keys(settings)) do
    if not known[key] then settings[key] = nil end
  end
  return settings
end

--- sluice.load(path, options?) -> loaded
--- Reads a checkpoint, or of a run's folder the newest one that is whole. Neither the recipe nor its options are needed, except where
--- blocks are written in Lua: their file is run only when it is named.
--- @param path string
--- @param options? table
--- @field recipe? string|sluice.Recipe  what makes the model, given the checkpoint's parameters: a recipe, or its file
--- @return sluice.Loaded
--- @example
--- local loaded = sluice.load "models/digits.safetensors"
--- local images, labels = loaded:sample { n = 2, labels = { 3, 7 }, steps = 2, seed = 1 }
--- print(images:shape()[1], labels)  --> 2 i64 [2] cpu [3, 7]
function checkpoint.load(path, options)
  if type(path) ~= "string" then
    error(("sluice.load: path is %s, expected a checkpoint's or a run's path"):format(tostring(path)), 2)
  end
  local o = fields.check(options or {}, { "recipe" }, "sluice.load", 2)
  local recipe = o.recipe
  if recipe ~= nil and type(recipe) ~= "string" and not require("sluice.recipe").is(recipe) then
    error(("sluice.load: recipe is %s, expected a recipe or its file's name"):format(fields.what(recipe)), 2)
  end
  local ok, loaded = pcall(core.load_checkpoint, path, recipe and function(meta) return model_of_recipe(recipe, meta) end)
  if not ok and interrupt.is(loaded) then error(loaded, 0) end
  if not ok then error("sluice.load: " .. tostring(loaded):gsub("^[^\n]-:%d+: ", ""), 2) end
  setmetatable(known_settings(loaded.sample), Settings)
  setmetatable(loaded, Loaded)
  loaded.checkpoint = describe(loaded.path, loaded.meta, loaded.dtype)
  return loaded
end

-- The flat weights of the EMA with this decay; the first one's for nil, nil (the model's own) for "none".
function checkpoint.ema(list, want)
  if want == "none" then return nil end
  if want == nil then return list[1] and list[1].weights end
  local have = {}
  for _, e in ipairs(list) do
    if e.decay == tonumber(want) then return e.weights end
    have[#have + 1] = decay_text(e.decay)
  end
  error(("ema is %s, there %s"):format(tostring(want),
    #have > 0 and "are " .. table.concat(have, ", ") .. " or none" or "is none but the weights themselves"), 0)
end

local function fill(trainer, tensors, prefix, array)
  local parts = strip(tensors, prefix)
  for name, t in pairs(trainer:array(array)) do
    if not parts[name] then error(("has no tensor %s%s"):format(prefix, name), 0) end
    local ok, fault = pcall(core.assign, t, parts[name])
    if not ok then error(("%s%s %s"):format(prefix, name, fault), 0) end
  end
end

-- Brings a trainer to where the newest whole checkpoint of the folder was; its step and the seconds spent until then.
-- decays: the EMAs, in the trainer's order.
function checkpoint.restore(folder, trainer, decays)
  return table.unpack(newest(folder, function(path)
    local tensors, meta = read(path)
    local ok, fault = pcall(function()
      fill(trainer, tensors, "model.", "params")
      fill(trainer, tensors, "optimizer.exp_avg.", "exp_avg")
      fill(trainer, tensors, "optimizer.exp_avg_sq.", "exp_avg_sq")
      for i, decay in ipairs(decays) do fill(trainer, tensors, "ema." .. decay_text(decay) .. ".", "ema." .. i - 1) end
    end)
    if not ok and interrupt.is(fault) then error(fault, 0) end
    if not ok then error(("%s: %s"):format(path, tostring(fault)), 0) end
    local step = math.tointeger(tonumber(meta.step)) or error(path .. ": has no step", 0)
    trainer:restore(step)
    return { step, tonumber(meta.seconds) or 0 }
  end))
end

-- Writes a loaded checkpoint without its optimizer: the model's weights are those of one EMA. o: ema, dtype
function checkpoint.export(path, loaded, o)
  local sample = {}
  for k, v in pairs(loaded.sample) do sample[k] = k ~= "ema" and v or nil end -- the one that it named is the model's weights now
  local weights = checkpoint.ema(loaded.ema, o and o.ema) or loaded.model:flatten(loaded.model:state())
  checkpoint.save(path, {
    model = loaded.model, diffusion = loaded.diffusion, weights = weights, sample = sample, step = loaded.step,
    recipe = loaded.meta.recipe, parameters = json.decode(loaded.meta.parameters), settings = json.decode(loaded.meta.settings or "{}"),
    seed = tonumber(loaded.meta.seed) or 0, name = loaded.meta.name,
  }, o and o.dtype or "f32")
end

return checkpoint
