-- log::settle
local period, most, tag, merged, refund, amount, age = unpack('>I8I8I8I8I8I8I8', arguments)
local left, before = departed(now - period)
local last, total = 0, before
if left < size then
  last, total = pair(size - 1)
end
local taken, is_ahead = (total - before) % WRAP, left < size and last > now + 1000000

-- As in log_window.lua; but all of a log whose entries are told apart, if something is given back.
cell = ''
if left < size then
  cell = pack('>BI8I8I8', 25, 0, before, 0)
  if size - left >= most - 1 or refund == 1 and merged == 0 then
    cell = cell .. call('GETRANGE', key, base + 16 * left, -1)
  else
    cell = cell .. pack('>I8I8', last, total * 4)
  end
end

-- The pairs from `from` on, each made another.
local function rewritten(from, change)
  local all, items = call('GETRANGE', key, base + 16 * from, base + 16 * size - 1), {}
  for i = 1, #all, 16 do
    local instant, word = unpack('>I8I8', all, i)
    items[#items + 1] = pack('>I8I8', change(instant, word))
  end
  return table.concat(items)
end

-- Keeps these pairs instead of all, and what is gone before them.
local function keep(items, gone_now, till)
  if items == '' then
    gone_now, till = 0, now
  end
  expires, new = till, function(px)
    call('SET', key, pack('>BI8I8I8', 25, till, gone_now, 0) .. items, 'PX', px)
  end
end

admitted = true
local charged = refund == 0 and math.min(amount, math.max(0, 562949953421312 - taken)) or 0
local back = refund == 1 and age < period and math.min(amount, taken) or 0
local function brought_back(instant, word)
  return is_ahead and math.min(instant, now) or instant, word
end
if is_ahead then
  last = math.min(last, now)
end
if charged > 0 and is_ahead then
  local items, instant = rewritten(left, brought_back), math.max(last, now)
  if size - left >= most or merged == 1 and last == instant then
    items = items:sub(1, -17)
  end
  items = items .. pack('>I8I8', instant, (total + charged) % WRAP * 4 + tag)
  keep(items, before, instant + period)
elseif charged > 0 then
  local instant = math.max(last, now)
  local joined = merged == 1
  if size - left >= most then
    joined = 'in any case'
  end
  append(left, before, instant, charged, tag, joined, instant + period)
elseif back > 0 then
  local from = left
  if merged == 1 then
    from = search(left, function(i)
      local _, total_there = pair(i)
      return (total_there - before) % WRAP > back
    end)
  else
    local _, oldest = pair(left)
    if size - left > 1 or (oldest - before) % WRAP <= back then
      from = left + 1
    end
  end
  if merged == 1 and not is_ahead and from < size then
    local till, gone_now = last + period, (before + back) % WRAP
    expires, new = till, function(px)
      call('SETRANGE', key, 0, pack('>BI8I8I8', 25, till, gone_now, from))
      call('PEXPIRE', key, px)
    end
  else
    local items = rewritten(from, function(instant, word)
      local sum = ((word - word % 4) / 4 - before) % WRAP
      if merged == 0 then
        word = (before + math.max(sum, back)) % WRAP * 4 + word % 4
      end
      return brought_back(instant, word)
    end)
    keep(items, (before + back) % WRAP, last + period)
  end
elseif is_ahead then
  keep(rewritten(left, brought_back), before, last + period)
end
