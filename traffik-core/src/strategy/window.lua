-- window::step
local cost, limit, period = unpack('>I8I8I8', arguments)
local start, count = words(2)
if not start or now >= start + period then
  start, count = now - now % period, 0
end
if cost <= limit - count then
  take(start + period, start, count + cost)
end
