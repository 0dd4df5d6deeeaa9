-- sluice.Run: what a training is while it goes on, and what sluice.train gives back.
local checkpoint = require "sluice.checkpoint"
local core = require "sluice.core"

local train_run = {}

-- Where the run's weights of now lie on disk, for what pictures say of themselves; nil if nowhere.
function train_run.saved_checkpoint(run)
  if run.saved ~= run.steps or run.steps == 0 then return nil end
  local path = run.folder:checkpoint_path(run.steps)
  return core.exists(path) and checkpoint.describe(path) or nil
end

--- sluice.Run
--- A run of a recipe: what sluice.train gives back.
--- @field dir string  its folder
--- @field name string
--- @field model sluice.Model
--- @field diffusion sluice.Diffusion
--- @field ema {decay: number, weights: sluice.Tensor}[]  the averages of the weights
--- @field steps integer  done
--- @field seconds number  spent in steps
--- @field last? table  the last step's result, as of trainer:step; nil if there was nothing left to do
--- @field parameters table  what the recipe's function was called with
--- @field settings table<string, any>  every resolved setting by a flat name
--- @field trainer sluice.Trainer
--- @setup
--- local recipe = sluice.recipe { function()
---   return {
---     data = sluice.data.tensors { images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) * 2 - 1 },
---     model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = 16, depth = 1, heads = 2 },
---     diffusion = sluice.diffusion {}, train = { steps = 2, batch = 4 },
---   }
--- end }
--- local run = sluice.train(recipe, { quiet = true, out = "runs/example" })
--- @example
--- print(run.steps, run.last.step, run.settings["optimizer.lr"])  --> 2 2 0.0001
local Run = {}
Run.__index = Run
Run.__name = "sluice.run"

--- run:sample(options?) -> images, labels?
--- Draws with the recipe's own `sample` settings and the first EMA.
--- @param options? table  what goes over the settings
--- @fields sluice.sample
--- @field model? sluice.Model  the run's
--- @field diffusion? sluice.Diffusion  the run's
--- @field ema? number|"none"|sluice.Tensor  a decay, "none" or weights; the first EMA
--- @return sluice.Tensor images
--- @return sluice.Tensor? labels
--- @example print(run:sample({ n = 2, steps = 2 }):shape()[1])  --> 2
function Run:sample(o)
  checkpoint.check_options(o, 3)
  self.checkpoint = train_run.saved_checkpoint(self)
  return checkpoint.sample(self, self.sample_settings, o)
end

-- At the prompt and in print: what became of it; the fields are for those who ask.
function Run:__tostring()
  local last = self.last and self.last.loss
  return ("run %s: %d steps%s"):format(self.dir or self.name, self.steps, last and (", last loss %.4f"):format(last) or "")
end

-- A run of these fields.
function train_run.new(t)
  return setmetatable(t, Run)
end

return train_run
