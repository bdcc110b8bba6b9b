-- What every script begins with. The command that was asked for last:
local asked

local function call(name, ...)
  asked = name
  return redis.call(name, ...)
end
