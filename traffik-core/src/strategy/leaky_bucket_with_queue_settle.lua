-- LeakyBucketWithQueue::settle
cell = stored[1] and pack('>BI8I8I8I8', 19, 0, stored[1], stored[2], 0) or ''
if after and unpack('>I8', arguments, 57) == 1 then
  local left, before = size, 0
  if tat > now or part > 0 then
    left, before = departed(now)
  end
  append(left, before, after_ceil, 1, 0, true, after_ceil, after, after_word)
elseif after then
  expires, new = after_ceil, function(px)
    call('SETRANGE', key, 0, pack('>BI8I8I8I8I8', 27, after_ceil, after, after_word, gone, first))
    call('PEXPIRE', key, px)
  end
end
