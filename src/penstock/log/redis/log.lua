-- Put before the scripts that use a log: finds it, and sees to it that it is the one that the caller knows.
-- If it is not, or is not as it should be, the answer is "look": that script puts right what can be.
--
-- KEYS[1]  the hash: what is known of the log as a whole, and its idempotency keys (see blocks.py)
-- KEYS[2]  the stream: the events
-- ARGV[1]  the epoch,
-- ARGV[2]  the seq and
-- ARGV[3]  the mark of the newest block that the caller knows
--
-- A script is not undone when it fails: all that can fail is done before the first write. Only that first
-- write can be refused for want of memory; scripts that must not be begin with one that removes something.

local LOG, EVENTS = KEYS[1], KEYS[2]
local SCHEMA, EPOCH, TRIMMED, HEAD, LAST, BLOCKS, BYTES, LARGEST = 1, 2, 3, 4, 5, 6, 7, 8

local log = redis.call(
  'HMGET', LOG, 'schema', 'epoch', 'trimmed', 'head', 'last', 'blocks', 'bytes', 'largest')
if log[SCHEMA] ~= '1' or redis.call('XLEN', EVENTS) ~= tonumber(log[BLOCKS]) then
  return 'look'
end
if log[EPOCH] == ARGV[1] then
  local known, head = tonumber(ARGV[2]), tonumber(log[HEAD])
  if head < known or (head == known and log[LAST] ~= ARGV[3]) then
    return 'look'
  end
end

local function text(number) -- whole, whatever its size
  return string.format('%.0f', number)
end

local function time_now()
  local now = redis.call('TIME')
  return now[1] .. '.' .. string.format('%06d', now[2])
end

-- What the server takes for a block, about: its text, those of its keys, and 64 bytes.
local function size_of(value, keys, from)
  local size = #value + 64
  for index = from, #keys do
    size = size + #keys[index]
  end
  return size
end

-- The log as it is now, and what else there is to say.
local function answer(...)
  return table.concat(log, ' ') .. ' ' .. table.concat({...}, ' ')
end
