-- Sampling at the prompt: a progress line, and above it the pictures as they become clear, drawn again in place now and then.
local core = require "sluice.core"
local progress = require "sluice.progress"
local show = require "sluice.show"

local live = {}

local FIRST, OFTEN, SHARE = 0.4, 0.4, 8 -- seconds before the first picture, at least between two; and times what one took
local MOST = 16 -- images

local shown -- what is on the screen of the sampling that runs, or nil

-- The images are pictures, and the terminal can move its cursor.
local function drawable(r)
  local channels = r.model:info().in_channels
  return (channels == 1 or channels == 3) and core.draw ~= nil and core.terminal() ~= nil
end

local function draw(self, state)
  local began = core.clock()
  local x = state.x0 or state.x
  if #x > MOST then x = x:slice(1, 1, MOST) end
  self.line:clear()
  self.rows = show.some(x, nil, self.rows)
  local took = core.clock() - began
  self.due = core.clock() + math.max(OFTEN, SHARE * took)
end

local function step(self, state)
  local last = state.i == state.n
  if self.pictures and (core.clock() >= self.due or (last and self.rows)) then draw(self, state) end
  if core.clock() >= self.first then self.line:update(self.before + state.i) end -- what is done at once needs no line
end

-- The observer of a sampling for sluice.sample: a function called after each step of the part that begins at image `first` (from 0).
function live.observer(settings)
  return function(r, first, batch)
    if settings.live == false then return nil end
    local parts = math.ceil(r.n / batch)
    local steps = r.diffusion.steps
    if first == 0 or not shown then
      live.finish()
      shown = {
        line = progress.new { total = steps * parts, per = math.min(batch, r.n), unit = "image steps", now = core.clock, tty = true },
        first = core.clock() + FIRST, due = core.clock() + FIRST, pictures = drawable(r),
      }
    end
    shown.before = first // batch * steps
    local self = shown
    return function(state) step(self, state) end
  end
end

-- After a line was run, whatever became of it: the progress line goes, the last pictures stay. True if there was a progress line.
function live.finish()
  local cleared = shown ~= nil and shown.line.width > 0
  if cleared then io.stderr:write "\r\27[K" end -- with the ^C that the terminal may have put behind it
  shown = nil
  return cleared
end

return live
