-- Ctrl-C, as far as Lua sees it. Only the program has handling of its own; in plain lua5.4 an error comes, at any moment.
local core = require "sluice.core"

local interrupt = {}

-- While on, a first Ctrl-C in the program only asks (see asked).
function interrupt.wait(on)
  if core.stop_on_interrupt then core.stop_on_interrupt(on) end
end

-- Whether a Ctrl-C came since wait(true).
function interrupt.asked()
  return core.stop_asked ~= nil and core.stop_asked()
end

-- Whether an error is a Ctrl-C's: "interrupted" from the program or the core, "interrupted!" from lua5.4, "interrupted after step 3 …"
-- from a training; with or without a place before it. A path or a message that merely has the word is none.
function interrupt.is(fault)
  local text, places = tostring(fault), 1
  while places > 0 do text, places = text:gsub("^[^\n]-:%d+: ", "", 1) end
  return text:match "^interrupted%f[^%w]" ~= nil
end

return interrupt
