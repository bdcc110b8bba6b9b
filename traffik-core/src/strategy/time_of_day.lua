-- TimeOfDay::step
local applying = hours_at(instant)
local capacity = applying > 0 and hours[applying][3] or limit
if cost <= capacity - taken then
  take(math.min(aligned + period, edge or math.huge), start, taken + cost)
end
