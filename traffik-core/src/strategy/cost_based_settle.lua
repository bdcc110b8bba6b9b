-- CostBasedTokenBucket::settle
local mark, is_ahead = math.fmod(limit * 31 + capacity, 65521), false
local most, most_part = capacity, capacity_part
if word >= 4503599627370496 and math.floor(word / 68719476736) % 65536 == mark then
  local owed = 2 ^ (math.floor(word / 1073741824) % 64)
  if owed > most then
    most, most_part = owed, 0
  end
end
if missing > most + 1000000 then
  missing, part, is_ahead = most, most_part, true
end
if since > now + 1000000 then
  since, is_ahead = now, true
end

local was, was_part = missing, part
if unpack('>I8', arguments, 65) == 1 then
  missing, part = missing - price, part - price_part
  if part < 0 then
    missing, part = missing - 1, part + limit
  end
  if missing < 0 then
    missing, part = 0, 0
  end
else
  missing, part = missing + price, part + price_part
  if part >= limit then
    missing, part = missing + 1, part - limit
  end
  if missing >= 4503599627370496 then
    missing, part = 4503599627370496, 0
  end
end
if is_ahead or missing ~= was or part ~= was_part then
  if cost > 0 then
    remember()
  end
  local after = part
  if missing > capacity or missing == capacity and part > capacity_part then
    local bits = 0
    while 2 ^ bits < (part > 0 and missing + 1 or missing) do
      bits = bits + 1
    end
    after = 4503599627370496 + mark * 68719476736 + bits * 1073741824 + part
  end
  store(after)
end
admitted = true
