/**
 * What happens to messages, as Lua: each script is one atomic step on the keys of one queue. All of them begin with
 * the name of the queue in braces, so they are in one slot of a cluster and derived from KEYS[1].
 *
 *   prefix:{queue}              hash    format: that the queue exists, and how it is stored
 *   prefix:{queue}:groups       set     its groups; without any, what is sent waits in the group of no name
 *   prefix:{queue}:g:GROUP:…    one group's copy of the queue:
 *     stream       what is ready (behind the consumer group's position) and in flight (pending in it); each entry has
 *                  one field, named by its copyId, with the body
 *     copies       set of every copyId stored
 *     delayed      sorted set of copyIds by due time; bodies, the hash of their bodies
 *     held         hash of entries whose hold was extended: when it began
 *     state        hash: scanMs (when a hold may next run out), minLeaseMs
 *     dead         stream of dead letters, likewise; dead-copies, the set of their copyIds
 *
 * A consumer is one receiver of one process; its name ends in the lease it was opened with: a hold has run out when an
 * entry has been idle that long. The consumer '-' is nobody: its entries were given back and are delivered first.
 * A hold is fenced by the owner of the pending entry and its delivery count, never by time.
 */
import { type Script, script } from './connection.ts'

/** Raised with every change of what is stored. */
export const format: string = '1'
/** Lua: the server's time, never ours. */
export const now: string = `
local function now_ms(round)
  local t = redis.call('TIME')
  return t[1] * 1000 + round(t[2] / 1000)
end
`

const ensureGroup = `
local function ensure_group(base, group)
  redis.call('HSETNX', base, 'format', '${format}')
  local g = base .. ':g:' .. group
  local first = redis.call('SADD', base .. ':groups', group) == 1 and redis.call('SCARD', base .. ':groups') == 1
  if first and group ~= '' then
    for _, part in ipairs({':stream', ':copies', ':delayed', ':bodies'}) do
      if redis.call('EXISTS', base .. ':g:' .. part) == 1 then
        redis.call('RENAME', base .. ':g:' .. part, g .. part)
      end
    end
  end
  local made = redis.pcall('XGROUP', 'CREATE', g .. ':stream', 'idemq', '0', 'MKSTREAM')
  if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP') then error(made.err, 0) end
  return g
end
`

/** ARGV: 'create' | 'check', then the group where one is asked for. Answers the format, or nil for what is missing. */
export const declareScript: Script = script(`${ensureGroup}
local base, group = KEYS[1], ARGV[2]
local known = redis.call('HGET', base, 'format')
if known and known ~= '${format}' then return known end
if ARGV[1] == 'create' then
  if group then ensure_group(base, group) else redis.call('HSETNX', base, 'format', '${format}') end
  return '${format}'
end
if not known or group and redis.call('SISMEMBER', base .. ':groups', group) == 0 then return false end
return known
`)

/**
 * A copy is remembered only once it is stored: where the user lacks a right, a script ends between two commands.
 * ARGV: '1' and the group, or '0' and '' for all; how many are not delayed, their copyIds, their bodies; then copyId,
 * delay in ms and body of each that is.
 */
export const sendScript: Script = script(`${now}${ensureGroup}
local base, call = KEYS[1], redis.call
local groups
if ARGV[1] == '1' then
  if redis.call('SISMEMBER', base .. ':groups', ARGV[2]) == 0 then ensure_group(base, ARGV[2]) end
  groups = {ARGV[2]}
else
  groups = call('SMEMBERS', base .. ':groups')
  if #groups == 0 then
    call('HSETNX', base, 'format', '${format}')
    groups = {''}
  end
end
local last = 3 + ARGV[3]
local sent_ms = #ARGV > last + ARGV[3] and now_ms(math.ceil)
for _, group in ipairs(groups) do
  local g = base .. ':g:' .. group
  local stream, copies = g .. ':stream', g .. ':copies'
  if last > 3 then
    local added = {}
    for i, known in ipairs(redis.call('SMISMEMBER', copies, unpack(ARGV, 4, last))) do
      local copy = ARGV[3 + i]
      if known == 0 and not added[copy] then
        call('XADD', stream, '*', copy, ARGV[last + i])
        added[copy] = true
      end
    end
    redis.call('SADD', copies, unpack(ARGV, 4, last))
  end
  for i = 2 * last - 2, #ARGV, 3 do
    local copy = ARGV[i]
    if redis.call('SISMEMBER', copies, copy) == 0 then
      redis.call('HSET', g .. ':bodies', copy, ARGV[i + 2])
      redis.call('ZADD', g .. ':delayed', sent_ms + ARGV[i + 1], copy)
      redis.call('SADD', copies, copy)
    end
  end
end
return 1
`)

/** ARGV: group, then copyId and body of each letter. */
export const sendDeadScript: Script = script(`
redis.call('HSETNX', KEYS[1], 'format', '${format}')
local g = KEYS[1] .. ':g:' .. ARGV[1]
for i = 2, #ARGV, 2 do
  if redis.call('SISMEMBER', g .. ':dead-copies', ARGV[i]) == 0 then
    redis.call('XADD', g .. ':dead', '*', ARGV[i], ARGV[i + 1])
    redis.call('SADD', g .. ':dead-copies', ARGV[i])
  end
end
return 1
`)

/** ARGV: group, id, copyId. */
export const removeDeadScript: Script = script(
  `
local g = KEYS[1] .. ':g:' .. ARGV[1]
redis.call('XDEL', g .. ':dead', ARGV[2])
return redis.call('SREM', g .. ':dead-copies', ARGV[3])
`,
  { whenFull: true },
)

/** ARGV: group. Answers nil for a missing queue, else { figure, value … }. */
export const statsScript: Script = script(`${now}
local base, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', base) == 0 then return false end
local groups = redis.call('SCARD', base .. ':groups')
local declared = redis.call('SISMEMBER', base .. ':groups', group) == 1
-- A group that nobody declared would find what waits for the first one.
local g = base .. ':g:' .. ((declared or groups > 0) and group or '')
local stream, now = g .. ':stream', now_ms(math.floor)
local since_id = function(id) return tonumber(string.match(id, '^%d+')) end
local length, pending, back = redis.call('XLEN', stream), 0, 0
local oldest_ready, oldest_in_flight
local last = '0-0'
if declared and redis.call('EXISTS', stream) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for i = 1, #info, 2 do
      if info[i] == 'last-delivered-id' then last = info[i + 1] end
    end
  end
  local from = '-'
  while pending < 10000 do
    local rows = redis.call('XPENDING', stream, 'idemq', from, '+', 1000)
    for _, row in ipairs(rows) do
      if row[2] == '-' then
        back = back + 1
        oldest_ready = oldest_ready or since_id(row[1])
      else
        local since = tonumber(redis.call('HGET', g .. ':held', row[1]) or now - row[3])
        oldest_in_flight = math.min(oldest_in_flight or since, since)
      end
    end
    pending = pending + #rows
    if #rows < 1000 then break end
    from = '(' .. rows[#rows][1]
  end
  if pending >= 10000 then
    local summary = redis.call('XPENDING', stream, 'idemq')
    pending, back = summary[1], 0
    for _, row in ipairs(summary[4] or {}) do
      if row[1] == '-' then back = tonumber(row[2]) end
    end
  end
end
if length > pending then
  local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  if first then oldest_ready = math.min(oldest_ready or since_id(first[1]), since_id(first[1])) end
end
local figures = {
  'ready', length - pending + back, 'delayed', redis.call('ZCARD', g .. ':delayed'), 'inFlight', pending - back,
  'dead', redis.call('XLEN', base .. ':g:' .. group .. ':dead')
}
local function add(name, value)
  figures[#figures + 1] = name
  figures[#figures + 1] = math.max(0, value)
end
if oldest_ready then add('oldestReadyAgeMs', now - oldest_ready) end
if oldest_in_flight then add('oldestInFlightAgeMs', now - oldest_in_flight) end
local next_due = redis.call('ZRANGE', g .. ':delayed', 0, 0, 'WITHSCORES')
if next_due[2] then add('nextDueInMs', tonumber(next_due[2]) - now) end
return figures
`)
