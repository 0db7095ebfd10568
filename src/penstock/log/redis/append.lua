-- Store events: all or none, with dense seqs, those with a key that is known not again.
--
-- KEYS[3]  is there if this very append is forbidden: its publisher has been told that it was not stored
-- ARGV[4]  the name of this append
-- ARGV[5]  "1" if something is to be written in any case, for which a WAIT can wait
-- ARGV[6…] pieces, three of each: how many events; their key, or "", with a key it is one; their text
--
-- Answers also the first new seq, the time, and for each piece with a key its seq.

local BLOCK_BYTES, BLOCK_EVENTS = 65536, 256 -- as in blocks.py

if redis.call('EXISTS', KEYS[3]) == 1 then
  return 'forbidden'
end

local seq, blocks, block = tonumber(log[HEAD]), {}, nil
local told, own = {text(seq + 1), time_now()}, {}
for index = 6, #ARGV, 3 do
  local events, key, json = tonumber(ARGV[index]), ARGV[index + 1], ARGV[index + 2]
  local known = nil
  if key ~= '' then
    known = own[key] or redis.call('HGET', LOG, key)
    own[key] = known or text(seq + 1)
    told[#told + 1] = own[key]
  end
  if not known then
    if not block or block.bytes + #json > BLOCK_BYTES or block.events + events > BLOCK_EVENTS then
      block = {bytes = 0, events = 0, texts = {'[' .. told[2]}, keys = {}}
      blocks[#blocks + 1] = block
    end
    seq = seq + events
    block.last, block.bytes, block.events = seq, block.bytes + #json, block.events + events
    block.texts[#block.texts + 1] = json
    if key ~= '' then
      block.keys[#block.keys + 1] = own[key]
      block.keys[#block.keys + 1] = key
    end
  end
end

if #blocks > 0 then
  local bytes, largest = tonumber(log[BYTES]), tonumber(log[LARGEST])
  for number, each in ipairs(blocks) do
    local mark = ARGV[4] .. '/' .. number
    local value = table.concat(each.texts, ',') .. ']'
    redis.call('XADD', EVENTS, text(each.last) .. '-0', mark .. ' ' .. log[LAST], value, unpack(each.keys))
    for index = 1, #each.keys, 2 do
      redis.call('HSET', LOG, each.keys[index + 1], each.keys[index])
    end
    local size = size_of(value, each.keys, 1)
    log[LAST], bytes, largest = mark, bytes + size, math.max(largest, size)
  end
  log[HEAD], log[BYTES], log[BLOCKS] = text(seq), text(bytes), text(log[BLOCKS] + #blocks)
  if largest > tonumber(log[LARGEST]) then
    log[LARGEST] = text(largest)
    redis.call('HSET', LOG, 'largest', log[LARGEST])
  end
  redis.call('HSET', LOG, 'head', log[HEAD], 'last', log[LAST], 'blocks', log[BLOCKS], 'bytes', log[BYTES])
elseif ARGV[5] == '1' then
  redis.call('HSET', LOG, 'last', log[LAST])
end
return answer(unpack(told))
