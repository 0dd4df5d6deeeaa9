-- Learning-rate schedules: functions of (step, total), step from 0, whose value multiplies lr.
local fields = require "sluice.fields"
local schedule = {}

local COSINE = fields.share("sluice.schedule.cosine", { "warmup", "final" })

local function warm(step, warmup)
  return warmup > 0 and math.min(1, (step + 1) / warmup) or 1
end

function schedule.constant()
  return function() return 1 end
end

-- Rises linearly over the first n steps, then stays.
function schedule.warmup(n)
  return function(step) return warm(step, n) end
end

-- Rises over `warmup` steps, then falls as half a cosine to `final` at the end.
function schedule.cosine(o)
  o = fields.check(o or {}, COSINE, "sluice.schedule.cosine", 2)
  local warmup, final = o.warmup or 0, o.final or 0
  return function(step, total)
    if step < warmup then return warm(step, warmup) end
    local u = (step - warmup) / math.max(1, total - 1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * math.min(1, u)))
  end
end

return schedule
