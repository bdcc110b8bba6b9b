-- SlidingWindowCounter::settle
local start, current, previous = words(3)
local unaligned = start and start % period or 0
start = start and start - unaligned
local aligned = now - now % period
if not start then
  start, current, previous = aligned, 0, 0
elseif now >= start + period then
  previous = aligned < start + 2 * period and current or 0
  start, current = aligned, 0
end
local honest = start
if start > now + math.max(period, 1000000) then
  honest = aligned + period
end
local after = settled(current, math.max(0, now - start), 1099511627776)
admitted = true
if unaligned > 0 or honest ~= start or after ~= current then
  local clear = after > 0 and honest + 2 * period or previous > 0 and honest + period or now
  take(clear, honest, after, previous)
end
