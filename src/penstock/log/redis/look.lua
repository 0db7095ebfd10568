-- Find the log: begin it where there is none, and a new epoch where it does not go on.
--
-- KEYS[1…2], ARGV[1…3] as in log.lua
-- ARGV[4]  a name for a new epoch, should there have to be one
-- ARGV[5]  the epoch to be ended if it is the present one, or ""
--
-- Answers the log, and what was done to it; or why it cannot be used.

local LOG, EVENTS = KEYS[1], KEYS[2]
local EPOCH, TRIMMED, HEAD, LAST, BLOCKS = 2, 3, 4, 5, 6
local FIELDS = {'schema', 'epoch', 'trimmed', 'head', 'last', 'blocks', 'bytes', 'largest'}

local function answer(log, done)
  return table.concat(log, ' ') .. ' ' .. done
end

local function begin(done)
  local log = {'1', ARGV[4], '0', '0', '', '0', '0', '0'}
  redis.call('DEL', LOG, EVENTS)
  for index, field in ipairs(FIELDS) do
    redis.call('HSET', LOG, field, log[index])
  end
  return answer(log, done)
end

-- Whether the log still has the newest block that the caller knows, as far as can be told.
local function goes_on(log)
  local known, head = tonumber(ARGV[2]), tonumber(log[HEAD])
  if log[EPOCH] ~= ARGV[1] or known == 0 then
    return true
  end
  if known >= head then
    return known == head and log[LAST] == ARGV[3]
  end
  if known <= tonumber(log[TRIMMED]) then
    return true
  end
  local block = redis.call('XRANGE', EVENTS, ARGV[2] .. '-0', '+', 'COUNT', 1)[1]
  return block ~= nil and string.match(block[2][1], '^%S+') == ARGV[3]
end

local log = redis.call('HMGET', LOG, unpack(FIELDS))
local blocks = redis.call('XLEN', EVENTS)
if not log[1] then
  local first = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
  local ours = first == nil or string.match(first[2][1], '^%x+%.%d+/%d+ ') ~= nil
  if redis.call('EXISTS', LOG) == 1 or not ours then
    return 'stranger'
  end
  return begin('begun')
end
if log[1] ~= '1' then
  return 'schema ' .. log[1]
end
for index = 1, #FIELDS do
  if not log[index] then
    return 'damaged'
  end
end
if blocks == 0 and log[BLOCKS] ~= '0' then -- the server took the stream for want of memory
  return begin('lost')
end
if blocks ~= tonumber(log[BLOCKS]) then
  return 'damaged'
end

local regressed = not goes_on(log)
if regressed or log[EPOCH] == ARGV[5] then
  log[EPOCH] = ARGV[4]
  redis.call('HDEL', LOG, 'epoch') -- never refused for want of memory; what follows is not, then
  redis.call('HSET', LOG, 'epoch', log[EPOCH])
end
return answer(log, regressed and 'regressed' or '')
