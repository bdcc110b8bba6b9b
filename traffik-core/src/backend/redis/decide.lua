-- Applies a batch of steps to the cells of some keys, or none of them.
--
-- KEYS[i]            the cell of operation i
-- KEYS[n+1]          when the cells were last reset; only if there are hints
-- ARGV[1]            the time in µs, or '' to ask this server
-- ARGV[2]            '' to only look, or how many ms cells outlive their use
-- ARGV[3i], [3i+1]   the kind of operation i and its arguments
-- ARGV[3i+2]         when the asker last saw this cell, and the cell; '' if it did not
--
-- Returns the time; 1 if all were admitted, 0 if not, -1 if another writer came first; every cell
-- as it was, '' where there is none; and if there are any, the number of cells that had been lost.
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
local operations, losses = (#ARGV - 2) / 3, 0
-- Tables only if there are several: this runs for every decision.
local many = operations > 1
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

local function to_live(till)
  return math.max(1, math.ceil((till - now) / 1000)) + slack
end

local function keep(bytes, till)
  redis.call('SET', KEYS[at], bytes, 'PX', to_live(till))
end

-- The cell of a hint, if the key would still be here had it not been lost.
local function recall(hint)
  local seen, _, till = unpack('>I8BI8', hint)
  -- See reset.rs: for so long a reset is remembered, and longer.
  if till <= now or now - seen >= 3600000000 then
    return
  end
  local reset = tonumber((redis.pcall('GET', KEYS[operations + 1])))
  if reset and seen <= reset then
    return
  end
  local lost = hint:sub(9)
  if slack then
    losses = losses + 1
    keep(lost, till)
  end
  return lost
end

for i = 1, operations do
  local kind = ARGV[3 * i]
  at, arguments, admitted, new = i, ARGV[3 * i + 1], false, nil
  if false then
--{in place}
  else
    -- A key of another type is no cell either.
    cell = redis.pcall('GET', KEYS[i])
    if not cell and ARGV[3 * i + 2] ~= '' then
      cell = recall(ARGV[3 * i + 2])
    end
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
  for i = 1, operations do
    if many then
      new, expires = all_new[i], all_expires[i]
    end
    at = i
    if type(new) == 'string' then
      keep(new, expires)
    elseif new then
      new(to_live(expires))
    end
  end
end
reply[2] = verdict
if losses > 0 then
  reply[operations + 3] = losses
end
return reply
