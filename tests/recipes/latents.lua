-- The paper's models on latents of noise: for forecasts, refusals and speed.
local sluice = require "sluice"

return sluice.recipe {
  defaults = { model = "DiT-S/2", batch = 4, micro = "", steps = 3, recompute = false, precision = "f32" },
  function(p)
    return {
      name = "latents",
      data = sluice.data.tensors { images = sluice.randn({ 64, 4, 32, 32 }, { seed = 1 }), labels = sluice.arange(64):sub(1) },
      model = sluice.dit { p.model, input = { 4, 32, 32 }, classes = 1000, routing = sluice.routing.dtr {} },
      diffusion = sluice.diffusion {},
      train = {
        steps = p.steps, batch = p.batch, micro_batch = p.micro == "auto" and "auto" or tonumber(p.micro), precision = p.precision,
        recompute = p.recompute, every = { checkpoint = 0, sample = 0 },
      },
    }
  end,
}
