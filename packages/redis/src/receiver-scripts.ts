/** What a receiver does, as Lua. The keys are those of {@link queue-scripts}. */
import { type Script, script } from './connection.ts'
import { now } from './queue-scripts.ts'

/** Most delayed copies that one look promotes. */
const maxPromoted = 1_000

/** A receiver begins. ARGV: group, lease in ms. Answers 1, or 0 where the group is missing. */
export const joinScript: Script = script(`${now}
local base, group, lease = KEYS[1], ARGV[1], tonumber(ARGV[2])
if redis.call('SISMEMBER', base .. ':groups', group) == 0 then return 0 end
local state = base .. ':g:' .. group .. ':state'
local known = redis.call('HMGET', state, 'minLeaseMs', 'scanMs')
if lease < (tonumber(known[1]) or math.huge) then redis.call('HSET', state, 'minLeaseMs', lease) end
local scan_ms = now_ms(math.floor) + lease
if scan_ms < (tonumber(known[2]) or 0) then redis.call('HSET', state, 'scanMs', scan_ms) end
return 1
`)

/**
 * Promotes what is due, finds holds that ran out, and takes: first what was given back, then what is new if told so.
 * ARGV: group, consumer, most entries, lease of consumers that do not say theirs, '1' to take what is new.
 * Answers { ms until it should look again, {id, its fields, earlier deliveries} … }.
 */
export const lookScript: Script = script(
  `${now}
local g = KEYS[1] .. ':g:' .. ARGV[1]
local stream, delayed, bodies, held, state = g .. ':stream', g .. ':delayed', g .. ':bodies', g .. ':held', g .. ':state'
local consumer, max, default_lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms(math.floor)
local again_ms = now + 60000

local refused = false
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', string.format('%.0f', now), 'LIMIT', 0, ${maxPromoted})
if #due > 0 then
  local promoted = 0
  for i, body in ipairs(redis.call('HMGET', bodies, unpack(due))) do
    if body then
      -- Out of memory, XADD is refused: what is due waits, and what is ready can still be drained.
      local added = redis.pcall('XADD', stream, '*', due[i], body)
      refused = type(added) == 'table' and added.err
      if refused then break end
    end
    promoted = i
  end
  if promoted > 0 then
    redis.call('ZREM', delayed, unpack(due, 1, promoted))
    redis.call('HDEL', bodies, unpack(due, 1, promoted))
  end
  if promoted == ${maxPromoted} then again_ms = now end
end

local known = redis.call('HMGET', state, 'scanMs', 'minLeaseMs')
local scan_ms = tonumber(known[1] or '0')
if now >= scan_ms then
  scan_ms = now + math.min(default_lease, tonumber(known[2] or default_lease))
  local from = '-'
  while true do
    local rows = redis.call('XPENDING', stream, 'idemq', from, '+', 1000)
    local lapsed = {}
    for _, row in ipairs(rows) do
      if row[2] ~= '-' then
        local left = (tonumber(string.match(row[2], '%.(%d+)$')) or default_lease) - row[3]
        if left <= 0 then lapsed[#lapsed + 1] = row[1] else scan_ms = math.min(scan_ms, now + left) end
      end
    end
    if #lapsed > 0 then
      lapsed[#lapsed + 1] = 'JUSTID'
      redis.call('XCLAIM', stream, 'idemq', '-', 0, unpack(lapsed))
    end
    if #rows < 1000 then break end
    from = '(' .. rows[#rows][1]
  end
  redis.pcall('HSET', state, 'scanMs', string.format('%.0f', scan_ms))
  -- Consumers of processes that are gone. One that is idle yet alive comes back by itself.
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, 'idemq')) do
    local name, pending, idle
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
      if info[i] == 'pending' then pending = info[i + 1] end
      if info[i] == 'idle' then idle = info[i + 1] end
    end
    if pending == 0 and idle > 3600000 and name ~= '-' then
      redis.call('XGROUP', 'DELCONSUMER', stream, 'idemq', name)
    end
  end
end

local taken = {}
local function take(id, prior, fields)
  taken[#taken + 1] = {id, fields, prior}
end
if max > 0 then
  local back = redis.call('XPENDING', stream, 'idemq', '-', '+', max, '-')
  if #back > 0 then
    local ids, counts = {}, {}
    for i, row in ipairs(back) do
      ids[i] = row[1]
      counts[row[1]] = row[4]
    end
    for _, entry in pairs(redis.call('XCLAIM', stream, 'idemq', consumer, 0, unpack(ids))) do
      if entry then
        take(entry[1], counts[entry[1]], entry[2])
        counts[entry[1]] = nil
      end
    end
    -- Somebody trimmed the stream: there is nothing left to deliver.
    for id in pairs(counts) do redis.call('XACK', stream, 'idemq', id) end
    redis.call('HDEL', held, unpack(ids))
  end
  if #back == max then again_ms = now end
  if #taken < max and ARGV[5] == '1' then
    local read = redis.call('XREADGROUP', 'GROUP', 'idemq', consumer, 'COUNT', max - #taken, 'STREAMS', stream, '>')
    if read then
      for _, entry in ipairs(read[1][2]) do take(entry[1], 0, entry[2]) end
    end
  end
end
local next_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if next_due[2] and not refused then again_ms = math.min(again_ms, tonumber(next_due[2])) end
table.insert(taken, 1, math.max(0, math.min(again_ms, scan_ms) - now))
return taken
`,
  { whenFull: true },
)

/**
 * What the consumer still holds of the deliveries that are named. ARGV: group, consumer, first and last millisecond of
 * their ids, how many they are, their ids. Behind that, from `at`: the place and the count of each that was delivered
 * more than once.
 */
const stillHeld = `
local g = KEYS[1] .. ':g:' .. ARGV[1]
local stream, consumer, named, ids_before = g .. ':stream', ARGV[2], tonumber(ARGV[5]), 5
local function still_held_of(at)
  -- All that it holds in that time, in one look: a batch mostly lies close together.
  local rows = redis.pcall('XPENDING', stream, 'idemq', ARGV[3], ARGV[4], 1000000000, consumer)
  if rows.err and not string.find(rows.err, 'NOGROUP') then error(rows.err, 0) end
  local held, counts = {}, {}
  for _, row in ipairs(rows) do held[row[1]] = row end
  for i = at, #ARGV, 2 do counts[tonumber(ARGV[i])] = tonumber(ARGV[i + 1]) end
  return function(place)
    local id = ARGV[ids_before + place]
    local row = held[id]
    if not row or row[4] ~= (counts[place] or 1) then return nil end
    -- Named twice, it is settled once.
    held[id] = nil
    return row
  end
end
`

/**
 * ARGV: as above; between the two parts the copyId of each, how many of them are released, and the places of those. A
 * release gives the delivery back uncounted. Answers the places of those that are lost.
 */
export const settleScript: Script = script(
  `${stillHeld}
local copies_before = ids_before + named
local releases_at = copies_before + named + 1
local last_release = releases_at + ARGV[releases_at]
local still_held = still_held_of(last_release + 1)
local released = {}
for i = releases_at + 1, last_release do released[tonumber(ARGV[i])] = true end
local lost, ended, acked, copies = {}, {}, {}, {}
for place = 1, named do
  local row = still_held(place)
  if not row then
    lost[#lost + 1] = place
  elseif released[place] then
    redis.call('XCLAIM', stream, 'idemq', '-', 0, row[1], 'RETRYCOUNT', row[4] - 1, 'JUSTID')
    ended[#ended + 1] = row[1]
  else
    acked[#acked + 1] = row[1]
    copies[#copies + 1] = ARGV[copies_before + place]
  end
end
if redis.call('EXISTS', g .. ':held') == 1 then
  for _, ids in ipairs({ended, acked}) do
    if #ids > 0 then redis.call('HDEL', g .. ':held', unpack(ids)) end
  end
end
if #acked > 0 then
  -- Pending until the last command, so that it can be asked again where the user lacks a right.
  redis.call('XDEL', stream, unpack(acked))
  redis.call('SREM', g .. ':copies', unpack(copies))
  redis.call('XACK', stream, 'idemq', unpack(acked))
end
return lost
`,
  { whenFull: true },
)

/** ARGV: as above. Answers the places of those that are lost. */
export const extendScript: Script = script(
  `${now}${stillHeld}
local still_held = still_held_of(ids_before + named + 1)
local now = now_ms(math.floor)
local lost, ids = {}, {}
for place = 1, named do
  local row = still_held(place)
  if row then
    ids[#ids + 1] = row[1]
    -- For the age of what is in flight only: no reason to fail.
    redis.pcall('HSETNX', g .. ':held', row[1], string.format('%.0f', now - row[3]))
  else
    lost[#lost + 1] = place
  end
end
if #ids > 0 then
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, 'idemq', consumer, 0, unpack(ids))
end
return lost
`,
  { whenFull: true },
)

/** A receiver ends: what is pending for it goes back, counted, and its name goes. ARGV: group, consumer. */
export const leaveScript: Script = script(
  `
local g = KEYS[1] .. ':g:' .. ARGV[1]
local stream, consumer = g .. ':stream', ARGV[2]
while true do
  local rows = redis.pcall('XPENDING', stream, 'idemq', '-', '+', 1000, consumer)
  if rows.err then return 0 end
  if #rows == 0 then break end
  local ids = {}
  for i, row in ipairs(rows) do ids[i] = row[1] end
  redis.call('HDEL', g .. ':held', unpack(ids))
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, 'idemq', '-', 0, unpack(ids))
end
redis.call('XGROUP', 'DELCONSUMER', stream, 'idemq', consumer)
return 1
`,
  { whenFull: true },
)
