-- window::lend
local start, count = words(2)
if not start or now >= start + period then
  start, count = now - now % period, 0
end
local after = lent(start, count, limit)
admitted = after ~= nil
if after and after ~= count then
  take(start + period, start, after)
end
