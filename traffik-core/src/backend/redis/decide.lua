-- Applies a batch of steps to the cells of some keys, or none of them.
--
-- KEYS[i]             the cell of operation i
-- ARGV[1]             the time in µs, or '' to ask this server
-- ARGV[2]             '' to only look, or how many ms cells outlive their use
-- ARGV[2i+1], [2i+2]  the kind of operation i and its arguments
--
-- Returns the time; 1 if all were admitted, 0 if not, -1 if another writer came first; and every
-- cell as it was, '' where there is none.
local spread = unpack
local unpack, pack = struct.unpack, struct.pack
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local slack = tonumber(ARGV[2])

local verdict, reply, bytes, ttl = 1, {now}, {}, {}
local at, cell, arguments, admitted

-- Keeps these bytes from now until `expires`, or calls this function with the time to live in ms,
-- if every operation is admitted.
local function put(expires, new)
  admitted = true
  bytes[at] = new
  ttl[at] = math.max(1, math.ceil((expires - now) / 1000))
end

-- See Cell::encode: 16 is the version.
local function words(count)
  if #cell ~= 9 + 8 * count or cell:byte() ~= 16 + count then
    return
  end
  if count == 2 then
    local first, second = unpack('>I8I8', cell, 10)
    if first < 9007199254740992 and second < 9007199254740992 then
      return first, second
    end
    return
  end
  local all = {unpack('>' .. ('I8'):rep(count), cell, 10)}
  for i = 1, count do
    if all[i] >= 9007199254740992 then
      return
    end
  end
  return spread(all, 1, count)
end

local function take(expires, ...)
  expires = math.min(expires, 9007199254740991)
  local count = select('#', ...)
  if count == 2 then
    put(expires, pack('>BI8I8I8', 18, expires, ...))
  else
    put(expires, pack('>B' .. ('I8'):rep(count + 1), 16 + count, expires, ...))
  end
end

for i = 1, #KEYS do
  local kind = ARGV[2 * i + 1]
  at, arguments, admitted = i, ARGV[2 * i + 2], false
  if false then
--{in place}
  else
    -- A key of another type is no cell either.
    cell = redis.pcall('GET', KEYS[i])
    if type(cell) ~= 'string' then
      cell = ''
    end
    if kind == 'read' then
      admitted = true
    elseif kind == 'swap' then
      -- Expiry, length of the cell that was decided upon, that cell, and what it became.
      local expires, length = unpack('>I8I8', arguments)
      if arguments:sub(17, 16 + length) == cell then
        put(expires, arguments:sub(17 + length))
      else
        verdict, admitted = -1, true
      end
--{strategies}
    end
  end
  reply[i + 2] = cell
  if not admitted and verdict == 1 then
    verdict = 0
  end
end

if verdict == 1 and slack then
  for i = 1, #KEYS do
    local new = bytes[i]
    if type(new) == 'string' then
      redis.call('SET', KEYS[i], new, 'PX', ttl[i] + slack)
    elseif new then
      new(ttl[i] + slack)
    end
  end
end
reply[2] = verdict
return reply
