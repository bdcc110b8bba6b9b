-- schedule::prepaid
local horizon = now + capacity
if after < horizon or after == horizon and after_part <= capacity_part then
  take(after_ceil, after, word)
end
