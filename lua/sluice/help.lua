-- sluice.help(name): what a function or method is, in a line.
local core = require "sluice.core"

local LINES = {
  tensor =
    "sluice.tensor(nested table | number | {data=, shape=}, {dtype=\"f32\", device=\"cpu\"}): a new tensor",
  zeros = "sluice.zeros(shape, {dtype, device}): a tensor of zeros",
  ones = "sluice.ones(shape, {dtype, device}): a tensor of ones",
  full = "sluice.full(shape, value, {dtype, device}): a tensor of one value",
  arange =
    "sluice.arange(first, last, step=1, {dtype}): first … last, both included; arange(n) is 1 … n; i64 if all are integers",
  randn =
    "sluice.randn(shape, {seed, dtype}): normal deviates; without a seed, the next of sluice.seed's count",
  rand = "sluice.rand(shape, {seed, dtype}): uniform in (0, 1)",
  randint = "sluice.randint(lo, hi, shape, {seed, dtype=\"i64\"}): integers lo … hi, both included",
  seed = "sluice.seed(n): sets the count for draws that name no seed; n is 0 to 4294967295",
  value_and_grad =
    "sluice.value_and_grad(f, params, …) -> value, {name = grad}: f(params, …) returns one element; traced at each call",
  devices = "sluice.devices() -> list of device names",
  memory = "sluice.memory() -> {bytes, peak_bytes, limit, blocks, calls} of the library's own allocations",
  threads = "sluice.threads() -> number of compute threads",
  set_threads = "sluice.set_threads(n): compute threads from now on",
  is_tensor = "sluice.is_tensor(v) -> whether v is a tensor, concrete or symbolic",
  save_png =
    "sluice.save_png(path, images, {columns, quant=\"dit\"|\"adm\", pad, scale, text}): [N,C,H,W] or [C,H,W] in [-1, 1]",
  png_text = "sluice.png_text(path) -> {key = text}: a PNG's text chunks; Description and sluice say how it was made",
  load_image = "sluice.load_image(path) -> f32 [3,H,W] in [-1, 1]",
  ["io.load"] =
    "sluice.io.load(path) -> {name = tensor}, metadata; nil, message, code if it cannot be opened",
  ["io.save"] = "sluice.io.save(path, {name = tensor}, metadata): .npz by its name, else safetensors",
  ["json.decode"] = "sluice.json.decode(text): a Lua value; null is sluice.json.null",
  ["json.encode"] =
    "sluice.json.encode(value, \"object\"|\"array\"): JSON text; the second names what an empty table is",
  dit =
    "sluice.dit {\"DiT-B/2\", input={C,H,W}, classes=, patch=, hidden=, depth=, heads=, routing=, …}: a model",
  adm =
    "sluice.adm {\"ADM-64\", image_size=, model_channels=, num_res_blocks=, attention_resolutions=, channel_mult=, classes=, routing=, …}",
  diffusion =
    "sluice.diffusion {steps=1000, schedule=\"linear\"|\"cosine\"|f, predict=\"eps\"|\"x0\"|\"v\", variance=, respacing=}",
  routing =
    "sluice.routing.dtr{alpha, beta}, .random{beta, seed}, .none(), .table(t), .custom(f): which channels a block lets through at t",
  weight = "sluice.weight.constant(), .min_snr(gamma), .p2{gamma, k}, .custom(f): loss weights by timestep",
  timesteps = "sluice.timesteps: how training draws t",
  sample =
    "sluice.sample {model=, diffusion=, n=, labels=, cfg=, sampler=\"ddpm\"|\"ddim\"|f, steps=, seed=, keep=, …} -> images, labels, made",
  slerp = "sluice.slerp(a, b, weights) -> [m,C,H,W]: noises on the great circle from a to b, for noise=",
  sampler = "sluice.sampler {as sluice.sample}: for s in sampler:steps() do look at s.i, s.t, s.x, s.x0 end",
  recipe = "sluice.recipe {defaults = {…}, function(p) return {model=, diffusion=, data=, train=, …} end}",
  train = "sluice.train(recipe, {set, out, device}) -> run",
  load = "sluice.load(path) -> {model, diffusion, sample, ema} of a checkpoint or a run",
  ["t:shape"] = "t:shape() -> list of sizes",
  ["t:dtype"] = "t:dtype() -> \"f32\", \"bf16\", \"i32\", \"i64\", \"u8\", …",
  ["t:to"] = "t:to(dtype or device) -> t converted; t itself where nothing changes",
  ["t:clone"] = "t:clone() -> a copy with memory of its own",
  ["t:item"] = "t:item() -> the number in a tensor of one element",
  ["t:totable"] = "t:totable() -> nested tables of numbers",
  ["t:transpose"] = "t:transpose(a, b): swaps two dimensions, by default the last two",
  ["t:release"] = "t:release(): frees the memory now instead of at a collection",
}

local help = {}

-- The line of a name ("randn", "io.load", "t:item", any operation), or without one, all names in order.
function help.help(name)
  if name == nil then
    local names = core.signature()
    for known in pairs(LINES) do names[#names + 1] = known end
    table.sort(names)
    return names
  end
  if type(name) ~= "string" then error("sluice.help: expected a name, like \"softmax\" or \"io.load\"", 2) end
  name = name:gsub("^sluice%.", "")
  if LINES[name] then return LINES[name] end
  if LINES["t:" .. name] then return LINES["t:" .. name] end
  local signature = core.signature(name)
  if not signature then return nil end
  return ("sluice.%s, or t:%s: attributes in this order, or by name in a last table"):format(signature, name)
end

return help
