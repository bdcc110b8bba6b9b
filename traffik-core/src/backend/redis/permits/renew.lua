-- What a process has under way, and what it has no more.
--
-- KEYS: permits, or those who wait.
-- ARGV: the time in ms, or nothing to ask for it; how much longer keys live than they matter; then for each key the
-- lease in ms, how many leases begin anew, how many end, and which.
local function run()
  local now = tonumber(ARGV[1])
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local at = 3
  for _, key in ipairs(KEYS) do
    local lease, renewed, ended = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    at = at + 3
    for _ = 1, renewed do
      -- Anew, if it was forgotten or has ended meanwhile.
      call('ZADD', key, now + lease, ARGV[at])
      at = at + 1
    end
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
end

