-- Shares::of
local FAIR, PART, FIXED = 0, 1, 2
local MAX_PARTIES, SURPLUS = 64, 0

local start, same, stored, unaligned = nil, false, 0, 0
if cell:byte() == 25 and #cell >= 25 and #cell % 16 == 9 then
  start, stored = unpack('>I8', cell, 10), #cell
  unaligned = start % period
  start = start - unaligned
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

-- Shares::store
local function store()
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

