-- What a process has under way, and what it has no more.
--
-- KEYS: permits, or those who wait.
-- ARGV: the time in ms, or nothing to ask for it; how much longer keys live than they matter; then for each key the
-- lease in ms, how many leases begin anew, how many of those, at the end, it has never heard of, how many end, and which.
-- Replies: for each key how many leases it no longer knew of although it had heard of them, and how many ended since
-- nobody renewed them.
local function run()
  local now = tonumber(ARGV[1])
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local at, told = 3, {}
  for _, key in ipairs(KEYS) do
    local lease, renewed = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local heard, ended = renewed - tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local lost, expired = 0, 0
    at = at + 4
    if renewed > 0 then
      expired = call('ZREMRANGEBYSCORE', key, '-inf', now)
    end
    for nth = 1, renewed do
      -- Anew, if it was forgotten or has ended meanwhile.
      local added = call('ZADD', key, now + lease, ARGV[at])
      if nth <= heard then
        lost = lost + added
      end
      at = at + 1
    end
    told[#told + 1] = {lost, expired}
    if renewed > 0 then
      local ttl = lease + tonumber(ARGV[2])
      if call('PTTL', key) < ttl then
        call('PEXPIRE', key, ttl)
      end
    end
    for _ = 1, ended do
      call('ZREM', key, ARGV[at])
      at = at + 1
    end
  end
  return told
end

