-- A line that tells how far long work is: rewritten in place on a terminal, a line now and then elsewhere.
local core = require "sluice.core"
local text_width = require "sluice.text_width"

local progress = {}
progress.__index = progress

-- Seconds as people write them: 1:02:03, 4:05.
function progress.clock(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  if seconds >= 3600 then return ("%d:%02d:%02d"):format(seconds // 3600, seconds // 60 % 60, seconds % 60) end
  return ("%d:%02d"):format(seconds // 60, seconds % 60)
end

-- total: where it ends; first: where it begins (0); per: units worked on for each of them (1); unit: their name; now: a function
-- giving seconds; start: when the work began (now); tty: whether to rewrite the line; quiet: print nothing.
function progress.new(o)
  return setmetatable({
    total = o.total, first = o.first or 0, per = o.per or 1, unit = o.unit or "images", now = o.now, tty = o.tty, quiet = o.quiet,
    every = o.tty and 0.2 or 10, start = o.start or o.now(), last = -math.huge, out = o.out or io.stderr, width = 0,
  }, progress)
end

-- done: how far it is; text: what else to say; more: what to say at the end of the line.
function progress:update(done, text, more)
  local now = self.now()
  if self.quiet or (now - self.last < self.every and done < self.total) then return end
  self.last = now
  local spent, did = now - self.start, done - self.first
  local rate = spent > 0 and did * self.per / spent or 0
  local eta = did > 0 and spent / did * (self.total - done) or 0
  local line = ("%d/%d  %s%.3g %s/s  %s, %s left%s"):format(done, self.total, text and text .. "  " or "", rate, self.unit,
    progress.clock(spent), progress.clock(eta), more and "  " .. more or "")
  if self.tty then
    local _, columns = core.terminal()
    line = text_width.cut(line, (columns or 10000) - 1) -- a line that wraps could not be rewritten
    local width = text_width.of(line)
    self.out:write("\r", line, (" "):rep(math.max(0, self.width - width)))
    self.width = width
  else
    self.out:write(line, "\n")
  end
  self.out:flush()
end

-- Makes room for other lines; the next update writes the line anew.
function progress:clear()
  if self.tty and not self.quiet and self.width > 0 then
    self.out:write("\r", (" "):rep(self.width), "\r")
    self.out:flush()
    self.width, self.last = 0, -math.huge
  end
end

function progress:finish()
  if self.tty and not self.quiet and self.width > 0 then self.out:write("\n") end
end

-- A line of text on stderr, above the progress line if there is one.
function progress.say(text, line)
  if line then line:clear() end
  io.stderr:write(text, "\n")
end

function progress.warn(text, line)
  progress.say("sluice: warning: " .. text, line)
end

return progress
