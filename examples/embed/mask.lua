-- Half of the channels, moving from the first to the last with the noise level; every second block goes the other way.
return function(t, T, C, block)
  local width = C // 2
  local first = math.floor(t / (T - 1) * (C - width)) + 1
  if block % 2 == 0 then first = C - width + 2 - first end
  return first, first + width - 1
end
