-- LeakyBucketWithQueue::step. The log does not decide, so that it need not be shown.
cell = stored[1] and pack('>BI8I8I8I8', 19, 0, stored[1], stored[2], 0) or ''
local horizon = now + capacity
if after < horizon or after == horizon and after_part <= capacity_part then
  local left, before = size, 0
  if tat > now or part > 0 then
    left, before = departed(now)
  end
  append(left, before, after_ceil, 1, 0, true, after_ceil, after, word)
end
