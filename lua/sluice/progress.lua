-- A line that tells how far long work is: rewritten in place on a terminal, a line now and then elsewhere.
local progress = {}
progress.__index = progress

local function clock_text(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  if seconds >= 3600 then return ("%d:%02d:%02d"):format(seconds // 3600, seconds // 60 % 60, seconds % 60) end
  return ("%d:%02d"):format(seconds // 60, seconds % 60)
end

-- now: a function giving seconds; tty: whether to rewrite the line; quiet: print nothing.
function progress.new(o)
  return setmetatable({
    total = o.total, unit = o.unit or "images", now = o.now, tty = o.tty, quiet = o.quiet,
    every = o.tty and 0.2 or 10, start = o.now(), last = -math.huge, out = o.out or io.stderr, width = 0,
  }, progress)
end

-- done: how many of total; count: units worked on so far; text: what else to say.
function progress:update(done, count, text)
  local now = self.now()
  if self.quiet or (now - self.last < self.every and done < self.total) then return end
  self.last = now
  local spent = now - self.start
  local rate = spent > 0 and count / spent or 0
  local eta = done > 0 and spent / done * (self.total - done) or 0
  local line = ("%d/%d  %s  %.3g %s/s  %s, %s left"):format(done, self.total, text, rate, self.unit, clock_text(spent), clock_text(eta))
  if self.tty then
    self.out:write("\r", line, (" "):rep(math.max(0, self.width - #line)))
    self.width = #line
  else
    self.out:write(line, "\n")
  end
  self.out:flush()
end

function progress:finish()
  if self.tty and not self.quiet then self.out:write("\n") end
end

return progress
