-- TimeOfDay::settle
local after = settled(taken, math.max(0, now - start), 4503599627370496)
admitted = true
if is_ahead or after ~= taken then
  take(math.min(aligned + period, edge or math.huge), start, after)
end
