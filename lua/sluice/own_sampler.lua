-- Samplers written in Lua: sampler = function(s) … return x end. What s is, and how a step of one is taken.
local core = require "sluice.core"
local fields = require "sluice.fields"
local sluice = require "sluice"

local own = {}

local INNER = {} -- the key of what a step keeps for itself: sampler, diffusion, whole, index, clip

-- x0, eps and what else the process says of the network's output at x.
local function read_out(inner, out, x, index, of_whole)
  local d = of_whole and inner.whole or inner.diffusion
  local p = d:p_mean_variance(out, x, index, { clip = inner.clip })
  local a = d.alphas_cumprod64[index + 1]
  p.eps = (x * math.sqrt(1 / a) - p.pred_xstart) / math.sqrt(1 / a - 1)
  return p
end

local function inner_of(s)
  local inner = s[INNER]
  if not inner.sampler then error("this step is over: its s gives what was computed, and computes nothing more", 3) end
  return inner
end

-- What is computed when it is first asked for, and kept.
local LAZY = {}

function LAZY.out(s)
  return (core.sampler_predict(inner_of(s).sampler, s.x, s.t))
end

for field, name in pairs { x0 = "pred_xstart", eps = "eps", mean = "mean", variance = "variance", log_variance = "log_variance" } do
  LAZY[field] = function(s)
    local inner = s[INNER]
    inner.read = inner.read or read_out(inner, s.out, s.x, inner.index, false)
    return inner.read[name]
  end
end

local METHODS = {}

--- step:noise(number?) -> tensor
--- Normal deviates for this step, of the shape of x. They depend on seed, image and step alone; number 1 is what the built-in samplers
--- draw, 2, 3 … are more of them for samplers that add noise more than once.
---@param number? integer  1
---@return sluice.Tensor
function METHODS.noise(s, number)
  return core.sampler_noise(inner_of(s).sampler, number)
end

--- step:predict(x, t) -> x0, eps, out
--- What the network predicts at another point: the image and the noise that it sees in x at timestep t, and its own (guided) output.
---@param x sluice.Tensor  of the shape of s.x
---@param t integer  an original timestep: one of those sampled (s.t_next), or any if the diffusion was given whole and steps = n
---@return sluice.Tensor x0
---@return sluice.Tensor eps
---@return sluice.Tensor out
---@example
---local loaded = sluice.load "models/digits.safetensors"
---local function twice(s) -- DDIM's step, with the prediction where it ends
---  local x = s.x0 * s.alpha_cumprod_prev ^ 0.5 + s.eps * (1 - s.alpha_cumprod_prev) ^ 0.5
---  return s.t_next and s:predict(x, s.t_next) * s.alpha_cumprod_prev ^ 0.5 + s.eps * (1 - s.alpha_cumprod_prev) ^ 0.5 or x
---end
---print(loaded:sample({ n = 1, sampler = twice, steps = 3, seed = 1 }):shape()[3])  --> 28
function METHODS.predict(s, x, t)
  local inner = inner_of(s)
  local out, index, of_whole = core.sampler_predict(inner.sampler, x, t)
  local p = read_out(inner, out, x, index, of_whole and inner.whole ~= nil)
  return p.pred_xstart, p.eps, out
end

--- sluice.Step
--- What a sampler written in Lua gets at each step; it returns the next images. The network runs when one of x0, eps, out, mean and
--- variance is first asked for, and once. It serves inside that call only.
---@field x sluice.Tensor  the images now, [n,C,H,W]: a copy
---@field x0 sluice.Tensor  the image that the network predicts at x, in [-1, 1] with clip
---@field eps sluice.Tensor  the noise that x and x0 imply
---@field out sluice.Tensor  the network's own output, guided, with the variance's channels where that is learned
---@field mean sluice.Tensor  of the ancestral step, the mean of q(x_{t-1} | x_t, x0)
---@field variance sluice.Tensor  of the ancestral step, as the network learned it or as the diffusion fixes it
---@field log_variance sluice.Tensor  its logarithm
---@field t integer  the original timestep of x
---@field t_next? integer  that of what is returned; nil at the last step
---@field i integer  the number of this step, 1 … n
---@field n integer  how many steps there are
---@field alpha_cumprod number  of t: x = sqrt(alpha_cumprod) x0 + sqrt(1 - alpha_cumprod) eps
---@field alpha_cumprod_prev number  of what is returned; 1 at the last step
---@field beta number  1 - alpha_cumprod / alpha_cumprod_prev
---@field eta number  the option eta, for samplers that have a use for it
---@field state table  kept from step to step, for each batch; what a step that failed had put there is dropped
---@example
---local loaded = sluice.load "models/digits.safetensors"
---local function ddpm(s)
---  if not s.t_next then return s.mean end
---  return s.mean + (s.log_variance / 2):exp() * s:noise()
---end
---print(loaded:sample({ n = 1, sampler = ddpm, steps = 3, seed = 1 }):shape()[3])  --> 28

local NAMES = {
  "x", "x0", "eps", "out", "mean", "variance", "log_variance", "t", "t_next", "i", "n", "alpha_cumprod", "alpha_cumprod_prev", "beta",
  "eta", "state", "noise", "predict",
}

local Step = { __name = "sluice.Step" }

function Step.__index(s, key)
  if METHODS[key] then return METHODS[key] end
  local compute = LAZY[key]
  if compute then
    local value = compute(s)
    rawset(s, key, value)
    return value
  end
  if key ~= "t_next" then -- which is nil at the last step
    fields.check({ [key] = true }, NAMES, "the sampler's s", 2)
  end
end

function Step.__newindex(_, key)
  error(("the sampler's s.%s cannot be assigned: return the next x, and keep what the next step needs in s.state"):format(tostring(key)),
    2)
end

local function new_step(sampler, r, state)
  local index = sampler.n - 1 - sampler.i
  local all = r.diffusion.alphas_cumprod64
  local a, before = all[index + 1], index > 0 and all[index] or 1
  local map = r.diffusion.timesteps
  return setmetatable({
    [INNER] = { sampler = sampler, diffusion = r.diffusion, whole = r.whole, index = index, clip = r.clip },
    x = sampler.x:clone(), i = sampler.i + 1, n = sampler.n, t = map[index + 1], t_next = map[index],
    alpha_cumprod = a, alpha_cumprod_prev = before, beta = 1 - a / before, eta = r.eta, state = state,
  }, Step)
end

local function check(x, s)
  if sluice.is_tensor(x) and x:dtype() == "f32" and x:shape() == s.x:shape() then return end
  error(("sluice.sample: the sampler's function returned %s at step %d of %d, expected the next x, f32 %s"):format(fields.what(x), s.i,
    s.n, tostring(s.x:shape())), 0)
end

-- The function that takes a step of a sampler object. f: the user's; r: resolved options. State that f keeps is taken over with the
-- step's x, so that a step which was interrupted can be taken again.
function own.advance(f, r)
  local state = {}
  return function(sampler)
    local s = new_step(sampler, r, fields.merged(state))
    local x = f(s)
    check(x, s)
    if type(s.state) ~= "table" then error(("the sampler's s.state is %s, expected a table"):format(tostring(s.state)), 0) end
    -- x0 is there without another run of the network if any of what it gives was asked for
    core.sampler_take(sampler, x, rawget(s, "out") and s.x0 or nil)
    state, s[INNER].sampler = s.state, nil
  end
end

return own
