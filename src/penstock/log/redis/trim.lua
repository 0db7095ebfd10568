-- Remove the oldest events that need not be kept, a few blocks at a time.
--
-- ARGV[4]  how old they may become in seconds, or ""
-- ARGV[5]  how many may be kept, or ""
-- ARGV[6]  how many bytes may be kept, or ""
-- ARGV[7]  the most blocks to look at
--
-- Answers also how many events were removed. Of a block that must stay in part, only its keys are removed.

local trimmed, bytes = tonumber(log[TRIMMED]), tonumber(log[BYTES])
local oldest = ARGV[4] ~= '' and tonumber(time_now()) - tonumber(ARGV[4])
local enough = ARGV[5] ~= '' and tonumber(log[HEAD]) - tonumber(ARGV[5]) or 0
local most = ARGV[6] ~= '' and tonumber(ARGV[6])

local upto, gone, kept_from, keys = trimmed, 0, '0', {}
for _, block in ipairs(redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', ARGV[7])) do
  local last, fields = tonumber(string.match(block[1], '^%d+')), block[2]
  local time = tonumber(string.match(fields[2], '^%[([%d.]+)'))
  local all = last <= enough or (oldest and time < oldest) or (most and bytes > most)
  local to = all and last or enough
  for index = 3, #fields, 2 do
    local seq = tonumber(fields[index])
    if seq > upto and seq <= to then
      keys[#keys + 1] = fields[index + 1]
    end
  end
  upto = math.max(upto, to)
  if not all then
    break
  end
  gone, kept_from, bytes = gone + 1, text(last + 1), bytes - size_of(fields[2], fields, 3)
end

if upto > trimmed then
  redis.call('XTRIM', EVENTS, 'MINID', '=', kept_from) -- first: it is never refused for want of memory
  for _, key in ipairs(keys) do
    redis.call('HDEL', LOG, key)
  end
  log[TRIMMED], log[BYTES], log[BLOCKS] = text(upto), text(bytes), text(log[BLOCKS] - gone)
  redis.call('HSET', LOG, 'trimmed', log[TRIMMED], 'bytes', log[BYTES], 'blocks', log[BLOCKS])
end
return answer(text(upto - trimmed))
