-- SlidingWindowCounter::settle
local start, current, previous = words(3)
local late = start and start % period or 0
start = start and start - late
local aligned = now - now % period
if not start then
  start, current, previous = aligned, 0, 0
elseif now >= start + period then
  previous = aligned < start + 2 * period and current or 0
  start, current, late = aligned, 0, 0
end
local honest = start
if start > now + math.max(period, 1000000) then
  honest, late = aligned + period, 0
end
local after = settled(current, math.max(0, now - start), 1099511627776)
admitted = true
if honest ~= start or after ~= current then
  local clear = after > 0 and honest + 2 * period or previous > 0 and honest + period or now
  take(clear, honest + late, after, previous)
end
