-- QuotaWithRollover::periods: the one in force
local start, used, rolled = words(3)

local function roll()
  local quota = cumulative == 1 and limit + rolled or limit
  local rest = math.max(0, quota - used)
  start, used, rolled = start + length, 0, math.min(math.floor(rest * ppm / 1000000), most)
end

if start then
  rolled = math.min(rolled, most)
  if cumulative == 0 then
    rolled = math.min(rolled, math.floor(limit * ppm / 1000000))
  end
  local passed = math.floor(math.max(0, now - start) / length)
  if passed > 2 then
    start = nil
  end
  for _ = 1, math.min(passed, 2) do
    if start then
      roll()
    end
  end
end
if not start then
  start, used, rolled = now - now % length, 0, 0
end
