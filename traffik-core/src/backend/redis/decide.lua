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

local verdict, reply = 1, {now, 1, ''}
-- Of the operation at hand: its place, its cell, and what becomes of it if all are admitted: bytes
-- to be kept until `expires`, or a function that keeps them, given the time to live in ms.
local at, cell, arguments, admitted, new, expires
-- Tables only if there are several: this runs for every decision.
local many = #KEYS > 1
local all_new, all_expires = many and {}, many and {}

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

local function take(till, ...)
  admitted, expires = true, math.min(till, 9007199254740991)
  local count = select('#', ...)
  if count == 2 then
    new = pack('>BI8I8I8', 18, expires, ...)
  else
    new = pack('>B' .. ('I8'):rep(count + 1), 16 + count, expires, ...)
  end
end

for i = 1, #KEYS do
  local kind = ARGV[2 * i + 1]
  at, arguments, admitted, new = i, ARGV[2 * i + 2], false, nil
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
      local till, length = unpack('>I8I8', arguments)
      admitted = true
      if arguments:sub(17, 16 + length) == cell then
        expires, new = till, arguments:sub(17 + length)
      else
        verdict = -1
      end
--{strategies}
    end
  end
  reply[i + 2] = cell
  if not admitted and verdict == 1 then
    verdict = 0
  end
  if many then
    all_new[i], all_expires[i] = new, expires
  end
end

if verdict == 1 and slack then
  for i = 1, #KEYS do
    if many then
      new, expires = all_new[i], all_expires[i]
    end
    if new then
      local px = math.max(1, math.ceil((expires - now) / 1000)) + slack
      if type(new) == 'string' then
        redis.call('SET', KEYS[i], new, 'PX', px)
      else
        new(px)
      end
    end
  end
end
reply[2] = verdict
return reply
