-- sluice export
local arguments = require "sluice.cli.arguments"
local checkpoint = require "sluice.checkpoint"
local sluice = require "sluice"

local function declare(p)
  p:argument("source", "a run's folder or a checkpoint")
  p:argument("output", "a name that ends in .safetensors")
  p:option("--ema", "the decay of the EMA, or none (the first EMA)"):argname("DECAY")
  arguments.choice(p:option("--dtype", "of the weights (f32)"), { "f32", "bf16" })
  arguments.recipe_option(p)
  arguments.json_flag(p)
end

local function run(o)
  arguments.check_output("output", o.output, { ".safetensors" })
  local loaded = sluice.load(o.source, { recipe = o.recipe })
  checkpoint.export(o.output, loaded, { ema = o.ema, dtype = o.dtype })
  if o.json then
    local digest = checkpoint.header(o.output).digest
    arguments.say_json { output = o.output, source = loaded.path, step = loaded.step, dtype = o.dtype or "f32", digest = digest }
  else
    arguments.say("%s: the weights of %s", o.output, o.source)
  end
end

return {
  summary = "Writes a run's or checkpoint's weights alone, ready to be sampled: one EMA, no optimizer.", declare = declare, run = run,
  examples = { "sluice export runs/short short.safetensors --dtype bf16" },
}
