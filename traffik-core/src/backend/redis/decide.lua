-- Decides batches of operations, one after the other, as if each had come alone. Of a batch, all
-- operations are charged or none is.
--
-- KEYS[i]    the cell of operation i
-- KEYS[n+1]  when the cells were last reset; only if there are hints
-- ARGV[1]    the time in µs, or '' to ask this server; with cells that outlive nothing, a time of its own
-- ARGV[2]    '' to only look, or how many ms cells outlive their use
-- ARGV[3]    two bytes for each batch: how many operations it has; '' if every batch has one
-- ARGV[3+i]  operation i: its arguments; when the asker last saw the cell, and the cell it saw,
--            unless it saw none; how many bytes these two have, and the kind, a byte each. 128 are
--            added to the former if what it saw counts even where there is a cell, if that is less;
--            and to the latter if it is admitted whatever its strategy says
--
-- Returns the time and how many cells had been lost, in eight bytes each; and for every batch, 1 if
-- it was admitted, 0 if not, 2 if another writer came first or a step does not know, in one byte, followed by its cells as
-- they were, each after its length in four bytes, which is 0 where there is none. All that is one
-- text, because Redis and its clients take longer for many small values.
--
-- No error of a command may be taken for a cell that is not there: that would be a fresh quota.
local spread = unpack
local unpack, pack, byte, try = struct.unpack, struct.pack, string.byte, redis.pcall
-- What `try` has returned, but nothing for a key of another type, which holds no cell.
local function value(reply)
  if type(reply) ~= 'table' then
    return reply
  end
  if not reply.err:find('WRONGTYPE', 1, true) then
    error(reply)
  end
end

local function run()
local now, slack = tonumber(ARGV[1]), tonumber(ARGV[2])
-- When keys expire. Where `now` is when this server was asked before, what has expired since is not
-- lost.
local clock = now
if not now or slack == 0 then
  local time = call('TIME')
  clock = time[1] * 1000000 + time[2]
  now = now or clock
end
local sizes, operations = ARGV[3], #ARGV - 3

-- Of the operation at hand: its place, its cell, and what becomes of it if the batch is admitted:
-- bytes to be kept until `expires`, or a function that keeps them, given the time to live in ms.
-- Without `expires` they are only the words, and the cell lives as long as it did.
local at, cell, arguments, admitted, new, expires
-- Of a cell whose words were asked for, how many there are, and when it expires.
local had, lives

-- See Cell::encode: 16 is the version.
local function words(count)
  if #cell ~= 9 + 8 * count or byte(cell) ~= 16 + count then
    return
  end
  if count == 2 then
    local till, first, second = unpack('>I8I8I8', cell, 2)
    if first < 9007199254740992 and second < 9007199254740992 then
      had, lives = 2, till
      return first, second
    end
    return
  end
  local all = {unpack('>' .. ('I8'):rep(count + 1), cell, 2)}
  for i = 2, count + 1 do
    if all[i] >= 9007199254740992 then
      return
    end
  end
  had, lives = count, all[1]
  return spread(all, 2, count + 1)
end

local function take(till, ...)
  admitted, expires = true, math.min(till, 9007199254740991)
  local count = select('#', ...)
  if had == count and lives == expires then
    expires, new = nil, count == 2 and pack('>I8I8', ...) or pack('>' .. ('I8'):rep(count), ...)
  elseif count == 2 then
    new = pack('>BI8I8I8', 18, expires, ...)
  else
    new = pack('>B' .. ('I8'):rep(count + 1), 16 + count, expires, ...)
  end
end

local reply, filled, losses = {}, 1, 0
local batch, last = 0, 0
-- Of the operations of a batch, if it has several: one is the common case.
local all_new, all_expires = {}, {}
while last < operations do
  batch = batch + 1
  local first = last + 1
  last = last + (sizes == '' and 1 or unpack('>I2', sizes, 2 * batch - 1))
  local several = first < last
  local verdict, verdict_at = 1, filled + 1
  filled = verdict_at

  for i = first, last do
    at, arguments, admitted, new, had = i, ARGV[3 + i], false, nil, nil
    local hint, kind = byte(arguments, -2, -1)
    local lenient = kind >= 128
    if lenient then
      kind = kind - 128
    end
    local doubtful = hint >= 128
    if doubtful then
      hint = hint - 128
    end
    if false then
--{in place}
    else
      asked = 'GET'
      cell = try('GET', KEYS[i])
      if type(cell) == 'table' then
        cell = value(cell) or ''
      end
      local from, lost = #arguments - 1 - hint, not cell
      if doubtful and type(cell) == 'string' and #cell == hint - 8
          and byte(cell) == byte(arguments, from + 8)
          and unpack('>I8', arguments, from) <= now then
        -- Unless the clock has stepped back since, which brings cells back, too: whether less is in
        -- the cell than there was. See Strategy::grows.
        for word = 9, #cell - 8, 8 do
          local now_there = unpack('>I8', cell, 1 + word)
          local was_there = unpack('>I8', arguments, from + 8 + word)
          if now_there ~= was_there then
            lost = now_there < was_there
            break
          end
        end
      end
      if lost and hint > 0 then
        local seen, _, till = unpack('>I8BI8', arguments, from)
        -- The key would still be here, and as it was, had it not been lost, or reset. See reset.rs:
        -- for so long a reset is remembered, and longer.
        if till > clock and now - seen < 3600000000 then
          local reset = tonumber(value(try('GET', KEYS[operations + 1])) or nil)
          if not reset or seen > reset then
            cell = arguments:sub(from + 8, -3)
            if slack then
              losses = losses + 1
              local to_live = math.max(1, math.ceil((till - now) / 1000)) + slack
              call('SET', KEYS[i], cell, 'PX', to_live)
            end
          end
        end
      end
      if type(cell) ~= 'string' then
        cell = ''
      end
      if kind == 0 then
        admitted = true
      elseif kind == 1 then
        -- Expiry, length of the cell that was decided upon, that cell, and what it became.
        local till, length = unpack('>I8I8', arguments)
        admitted = true
        if arguments:sub(17, 16 + length) == cell then
          expires, new = till, arguments:sub(17 + length, -3 - hint)
          if new == '' then
            new = nil
          end
        else
          verdict = 2
        end
--{strategies}
      end
    end
    -- The length of two words is the common one.
    reply[filled + 1], reply[filled + 2] = #cell == 25 and '\0\0\0\25' or pack('>I4', #cell), cell
    filled = filled + 2
    if not admitted and verdict == 1 and not lenient then
      verdict = 0
    end
    if several then
      all_new[i - first], all_expires[i - first] = new, expires
    end
  end
  reply[verdict_at] = verdict == 1 and '\1' or verdict == 0 and '\0' or '\2'

  if verdict == 1 and slack then
    for i = first, last do
      if several then
        new, expires = all_new[i - first], all_expires[i - first]
      end
      if new and not expires then
        -- Half the price of what follows.
        call('SETRANGE', KEYS[i], 9, new)
      elseif new then
        local to_live = math.max(1, math.ceil((expires - now) / 1000)) + slack
        if type(new) == 'function' then
          new(to_live)
        else
          call('SET', KEYS[i], new, 'PX', to_live)
        end
      end
    end
  end
end
reply[1] = pack('>I8I8', now, losses)
return table.concat(reply)
end
