-- log.rs for Redis: the queue of a cell of `count` words, read and written in place. The last word
-- is the total of what has been dropped.
local key, base, WRAP = KEYS[at], 17 + 8 * count, 1125899906842624
local stored, gone, first, size = {}, 0, 0, 0
asked = 'GETRANGE'
local header = value(try('GETRANGE', key, 0, base - 1))
if type(header) == 'string' and #header == base and header:byte() == 24 + count then
  local pairs_stored = (call('STRLEN', key) - base) / 16
  local popped = unpack('>I8', header, base - 7)
  if pairs_stored % 1 == 0 and popped <= pairs_stored then
    stored = {unpack('>' .. ('I8'):rep(count), header, 10)}
    gone, first, size = stored[count] % WRAP, popped, pairs_stored
  end
  for i = 1, count do
    if stored[i] and stored[i] >= 9007199254740992 then
      stored, gone, first, size = {}, 0, 0, 0
    end
  end
end

-- The instant of a pair, and the total up to and including it.
local function pair(i)
  local from = base + 16 * i
  local instant, word = unpack('>I8I8', call('GETRANGE', key, from, from + 15))
  return instant, (word - word % 4) / 4
end

-- The first pair from `low` on for which `holds`, which then holds for all that follow; `size` if
-- none. Looks near the beginning first: most often it is there.
local function search(low, holds)
  local high, stride = size, 1
  while low < high do
    local middle = math.min(low + stride - 1, math.floor((low + high) / 2))
    if holds(middle) then
      high = middle
    else
      low, stride = middle + 1, stride * 2
    end
  end
  return low
end

-- How many pairs come at or before an instant, and the total before the rest.
local function departed(instant)
  local left = search(first, function(i)
    return pair(i) > instant
  end)
  if left == first then
    return left, gone
  end
  local _, total = pair(left - 1)
  return left, total
end

-- Drops the pairs before `left`, where the total is `before`, and adds an amount and its tag; `merged`
-- into the last pair if that has the same instant. The words but for the last follow.
local function append(left, before, instant, amount, tag, merged, till, ...)
  local last, total = -1, 0
  if left < size then
    last, total = pair(size - 1)
  else
    before = 0
  end
  -- What was brought back leaves earlier than what was logged before it.
  instant = math.max(instant, last)
  local item = pack('>I8I8', instant, (total + amount) % WRAP * 4 + tag)
  local joined = merged == 'in any case' or merged and last == instant
  local place = joined and size - 1 or size
  local values = {...}
  values[count] = before
  local function header(popped)
    values[count + 1] = popped
    return pack('>BI8' .. ('I8'):rep(count + 1), 24 + count, till, spread(values))
  end
  admitted, expires, new = true, till, function(px)
    if left > size / 2 or left == size then
      -- Most of it is popped. So rewriting it costs a hit no more, on average, than its own pair.
      local kept = ''
      if left < place then
        kept = call('GETRANGE', key, base + 16 * left, base + 16 * place - 1)
      end
      call('SET', key, header(0) .. kept .. item, 'PX', px)
    else
      call('SETRANGE', key, base + 16 * place, item)
      call('SETRANGE', key, 0, header(left))
      call('PEXPIRE', key, px)
    end
  end
end
