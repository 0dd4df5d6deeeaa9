-- Learning-rate schedules: functions of (step, total), step from 0, whose value multiplies lr.
local fields = require "sluice.fields"
--- sluice.schedule
--- Learning-rate schedules: functions of (step, total), step from 0, whose value multiplies lr; for a recipe's `optimizer.schedule`. A
--- function of your own serves as well.
local schedule = {}

local function warm(step, warmup)
  return warmup > 0 and math.min(1, (step + 1) / warmup) or 1
end

--- sluice.schedule.constant() -> function
--- 1 at all steps.
--- @return fun(step: integer, total: integer): number
--- @example print(sluice.schedule.constant()(0, 100))  --> 1
function schedule.constant()
  return function() return 1 end
end

--- sluice.schedule.warmup(n) -> function
--- Rises linearly over the first n steps to 1, then stays.
--- @param n integer
--- @return fun(step: integer, total: integer): number
--- @example print(sluice.schedule.warmup(10)(4, 100))  --> 0.5
function schedule.warmup(n)
  if type(n) ~= "number" or n ~= n or n < 0 then
    error(("sluice.schedule.warmup: n is %s, expected a number of steps, as sluice.schedule.warmup(1000)"):format(fields.what(n)), 2)
  end
  return function(step) return warm(step, n) end
end

--- sluice.schedule.cosine(options?) -> function
--- Rises linearly over the first steps to 1, then falls as half a cosine to its value at the last step.
--- @param options? table
--- @field warmup? integer  0; steps
--- @field final? number  0; at the last step
--- @return fun(step: integer, total: integer): number
--- @example print(sluice.schedule.cosine { final = 0.1 }(99, 100))  --> 0.1
function schedule.cosine(o)
  local what, get = "sluice.schedule.cosine", fields.get
  o = fields.check(o or {}, { "warmup", "final" }, what, 2)
  local warmup, final = get(o, "warmup", "number", 0, what, 2), get(o, "final", "number", 0, what, 2)
  return function(step, total)
    if step < warmup then return warm(step, warmup) end
    local u = (step - warmup) / math.max(1, total - 1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * math.min(1, u)))
  end
end

return schedule
