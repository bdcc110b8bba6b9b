-- Shares::settle
local latest, is_ahead = now + math.max(period, 1000000), false
local elapsed, used = math.max(0, now - start), me[3]
if start > latest then
  start, is_ahead = now - now % period + period, true
end
for _, party in ipairs(parties) do
  if party[2] > latest then
    party[2], is_ahead = now, true
  end
end
me[3] = settled(used, elapsed, 1099511627776)
if me[3] > used then
  me[2] = math.max(me[2], now)
end
if is_ahead or me[3] ~= used or unaligned > 0 then
  store()
end
admitted = true
