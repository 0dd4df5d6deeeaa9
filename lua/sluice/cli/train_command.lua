-- sluice train
local arguments = require "sluice.cli.arguments"
local sluice = require "sluice"

local fail = arguments.fail

local function declare(p)
  p:argument("recipe", "a Lua file that returns a sluice.recipe, or trains one"):args "?"
  p:option("--set", "changes one of the recipe's defaults"):argname("key=value"):count("*")
  p:option("--out", "folder of the run (runs/NAME-0001)"):argname("DIR")
  p:option("--resume", "goes on with the run in DIR, by its stored recipe unless one is given"):argname("DIR"):args "?"
  arguments.machine_options(p)
  p:flag("--quiet", "no progress line")
  arguments.json_flag(p)
end

local function tell(run, json)
  local last = run.last
  if json then
    arguments.say_json { dir = run.dir, name = run.name, steps = run.steps, loss = last and last.loss }
  elseif last then
    arguments.say("%s: %d steps, last loss %.4f", run.dir, run.steps, last.loss)
  end
end

local function run(o)
  arguments.use_machine(o)
  local resume = o.resume and (o.resume[1] or o.resume[1] == nil and o.out)
  if o.resume and not resume then fail("train: --resume: which run? sluice train --resume DIR") end
  if not o.recipe and not resume then fail("train: which recipe? sluice train RECIPE, or sluice train --resume DIR") end
  if resume and o.out and resume ~= o.out then fail("train: --out and --resume name different folders") end
  tell(sluice.train(o.recipe and require("sluice.code").load_recipe(o.recipe), {
    set = arguments.settings(o.set), out = not resume and o.out or nil, resume = resume, device = o.device, quiet = o.quiet,
  }), o.json)
end

return {
  summary = "Trains as a recipe says, or goes on with a run.", declare = declare, run = run,
  examples = { "sluice train recipes/quickstart.lua --set steps=2000 --out runs/short", "sluice train --resume runs/short" },
}
