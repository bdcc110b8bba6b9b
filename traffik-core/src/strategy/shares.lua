-- Shares: DistributedFairness::step and GeographicDistribution::step, by kind of share
-- limit × of ÷ total, in digits of 10 bits so that nothing exceeds 2^53.
local function fair(of, total)
  local quotient, rest = 0, 0
  for _, unit in ipairs({1048576, 1024, 1}) do
    local digit = math.floor(of / unit) % 1024
    local part = rest * 1024 + limit * digit
    quotient, rest = quotient * 1024 + math.floor(part / total), part % total
  end
  return quotient
end

local total, used, kept = 0, 0, 0
for _, party in ipairs(parties) do
  total, used = total + party[4], used + party[3]
end
for _, party in ipairs(parties) do
  if party ~= me then
    local share = 0
    if kind_of_share == PART then
      share = math.floor(party[4] * limit / 1000000)
    elseif total > 0 then
      share = fair(party[4], total)
    end
    kept = kept + math.max(share, party[3])
  end
end
local free = limit - me[3] - kept
if kind_of_share == FIXED then
  local mine = math.floor(weight * limit / 1000000)
  free = math.min(mine, math.max(0, limit - (used - me[3]))) - me[3]
end

if cost <= free then
  me[2], me[3] = math.max(me[2], now), me[3] + cost
  store()
end
