-- Shares: DistributedFairness::step and GeographicDistribution::step, by kind of share
local cost, limit, period, memory, label, weight, kind_of_share =
    unpack('>I8I8I8I8I8I8I8', arguments)
local FAIR, PART, FIXED = 0, 1, 2
local MAX_PARTIES, SURPLUS = 64, 0

local start, same, stored = nil, false, 0
if cell:byte() == 25 and #cell >= 25 and #cell % 16 == 9 then
  start, stored = unpack('>I8', cell, 10), #cell
  same = now < start + period
end
if not same then
  start = now - now % period
end

local parties, me, surplus = {}, nil, nil
for from = 26, stored - 31, 32 do
  local who, seen, used, of = unpack('>I8I8I8I8', cell, from)
  if same or seen + memory >= start then
    local party = {who, seen, same and used or 0, of}
    parties[#parties + 1] = party
    if who == label and not me then
      me = party
    elseif who == SURPLUS and not surplus then
      surplus = party
    end
  end
end
if not me and kind_of_share == FAIR and #parties + 1 >= MAX_PARTIES then
  me, label = surplus, SURPLUS
end
if not me then
  me = {label, 0, 0, weight}
  parties[#parties + 1] = me
end
me[4] = weight

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
  local till, items = start + period, {}
  for i, party in ipairs(parties) do
    -- Until the first window in which this party is not active.
    local windows = math.floor(math.max(0, party[2] + memory - start) / period) + 1
    till = math.max(till, start + windows * period)
    items[i] = pack('>I8I8I8I8', spread(party))
  end
  admitted, expires = true, math.min(till, 9007199254740991)
  new = pack('>BI8I8I8', 25, expires, start, 0) .. table.concat(items)
end
