-- AdaptiveThrottle::settle
local honest = start
if start > now + math.max(period, 1000000) then
  honest, late = now - now % period + period, 0
end
local after = settled(taken, math.max(0, now - start), 9000000000)
admitted = true
if honest ~= start or after ~= taken then
  store(honest, after)
end
