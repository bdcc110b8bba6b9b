-- QuotaWithRollover::settle
local honest = start
if start > now + math.max(length, 1000000) then
  honest = now - now % length + length
end
local after = settled(used, math.max(0, now - start), 1125899906842624)
admitted = true
if honest ~= start or after ~= used then
  take(honest + 3 * length, honest, after, rolled)
end
