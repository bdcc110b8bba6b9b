-- QuotaWithRollover::lend
local after = lent(start, used, limit + rolled)
admitted = after ~= nil
if after and after ~= used then
  take(start + 3 * length, start, after, rolled)
end
