-- window::settle
local start, count = words(2)
if not start or now >= start + period then
  start, count = now - now % period, 0
end
local honest = start
if start > now + math.max(period, 1000000) then
  honest = now - now % period + period
end
local after = settled(count, math.max(0, now - start), 9007199254740991)
admitted = true
if honest ~= start or after ~= count then
  take(honest + period, honest, after)
end
