-- TimeOfDay::lend
local applying = hours_at(instant)
local after = lent(start, taken, applying > 0 and hours[applying][3] or limit)
admitted = after ~= nil
if after and after ~= taken then
  take(math.min(aligned + period, edge or math.huge), start, after)
end
