-- What every script ends with: runs it, and tells which command has failed, of which Redis itself often
-- says nothing.
local done, reply = pcall(run)
if done then
  return reply
end
-- Before Redis 7 it says where in the script, and then the same.
local text = type(reply) == 'table' and reply.err or tostring(reply)
local complaint = text:gsub('^@?user_script:%s?%d+: ', ''):gsub('^%-', '')
if not complaint:find('^%u+ ') then
  -- A mistake in a script.
  return redis.error_reply('ERR ' .. text)
end
return redis.error_reply(complaint .. ' (asked for ' .. (asked or 'nothing') .. ')')
