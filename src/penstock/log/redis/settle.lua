-- Find out what became of an append whose answer was lost; if it is not there, forbid it for good.
--
-- KEYS[3]  that forbids it
-- ARGV[4]  the name of the append
-- ARGV[5]  the epoch,
-- ARGV[6]  the head and
-- ARGV[7]  the seq up to which all was trimmed, as they were known before it was sent
-- ARGV[8]  how many seconds it is forbidden for
-- ARGV[9…] the keys of its pieces that have one
--
-- Answers also "stored", the first new seq, the time, and for each key its seq; or "absent"; or "unknown".

local MOST = 20000 -- blocks that are looked through, newest first

local before = log[EPOCH] == ARGV[5] and tonumber(ARGV[6]) or 0
local name = ARGV[4] .. '/'
local first, time, from, looked, over = nil, nil, '+', 0, false
while not over and looked < MOST do
  local blocks = redis.call('XREVRANGE', EVENTS, from, '-', 'COUNT', 50)
  over = #blocks < 50
  for _, block in ipairs(blocks) do
    local seq, fields = tonumber(string.match(block[1], '^%d+')), block[2]
    local found = string.sub(fields[1], 1, #name) == name
    if seq <= before or (first and not found) then
      over = true
      break
    end
    if found then
      first = seq - (#cjson.decode(fields[2]) - 1) + 1
      time = string.match(fields[2], '^%[([%d.]+)')
    end
    from = '(' .. block[1]
  end
  looked = looked + #blocks
end

if first then
  local told = {'stored', text(first), time}
  for index = 9, #ARGV do
    local seq = redis.call('HGET', LOG, ARGV[index])
    if not seq then -- trimmed meanwhile
      return answer('unknown')
    end
    told[#told + 1] = seq
  end
  redis.call('HSET', LOG, 'last', log[LAST]) -- something for a WAIT to wait for
  return answer(unpack(told))
end

redis.call('DEL', KEYS[3]) -- never refused for want of memory; what follows is not, then
redis.call('SET', KEYS[3], '1', 'EX', ARGV[8])
-- What was trimmed since then could have been it.
local seen = over and tonumber(log[TRIMMED]) <= math.max(before, tonumber(ARGV[7]))
return answer(seen and 'absent' or 'unknown')
