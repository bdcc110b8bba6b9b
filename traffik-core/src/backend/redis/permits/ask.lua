-- One more permit of a count, if there is one.
--
-- KEYS: the permits under way, by the ends of their leases, and those who wait, by when they are taken for gone.
-- ARGV: the time in ms, or nothing to ask for it; how many may be under way; the lease in ms; how much longer keys
-- live than they matter; the permit; one that the asker has, or nothing; for how long it waits in ms, or 0; its
-- place, if it has one.
-- Replies: what became of it, how many more there are, the place, and how many leases ended since nobody renewed them.
local function outlives(key, ms)
  ms = ms + tonumber(ARGV[4])
  if call('PTTL', key) < ms then
    call('PEXPIRE', key, ms)
  end
end

local function run()
  local now = tonumber(ARGV[1])
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local permits, waiters, permit = KEYS[1], KEYS[2], ARGV[5]
  local limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3])
  local own, waits, place = ARGV[6], tonumber(ARGV[7]), ARGV[8]
  local expired = call('ZREMRANGEBYSCORE', permits, '-inf', now)
  -- Adds nothing, and tells whether it is there.
  if own ~= '' and not call('ZADD', permits, 'XX', 'INCR', 0, own) then
    -- Forgotten: the asker tells of its own first, whatever others have told since.
    return {2, 0, place, expired}
  end
  local held = call('ZCARD', permits)
  local waiting = call('ZRANGEBYSCORE', waiters, '(' .. now, '+inf')
  local ahead = #waiting
  if place ~= '' then
    ahead = 0
    -- A place begins with the time since which it is held.
    for _, other in ipairs(waiting) do
      if other < place then
        ahead = ahead + 1
      end
    end
  end
  if held + ahead < limit then
    call('ZADD', permits, now + lease, permit)
    outlives(permits, lease)
    if place ~= '' then
      call('ZREM', waiters, place)
    end
    return {1, limit - held - 1, '', expired}
  end
  if waits > 0 then
    if place == '' then
      place = string.format('%015d', now) .. permit
    end
    call('ZREMRANGEBYSCORE', waiters, '-inf', now)
    call('ZADD', waiters, now + waits, place)
    outlives(waiters, waits)
  end
  return {0, 0, place, expired}
end

