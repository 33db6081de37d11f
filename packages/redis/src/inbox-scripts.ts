/**
 * The inbox, as Lua: each script decides a batch of rows of one scope in one atomic step. A row is one packed string
 * that Redis itself deletes at the end of its retention:
 *
 *   completed        'd', '', fingerprint, false, result or false: no more than an answer needs, as most rows are
 *   c, r, f          state, token, fingerprint, whether it has steps, job id, replay, used, floor, lease until, expires,
 *   (claimed …)      1 if the start before it crashed. The lease of a released row is its hold
 *
 * Its steps, where it has any, are a hash beside it.
 */
import { type Script, script } from './connection.ts'

const minRetryAfterMs = 50

const rows = `
local call, pack, unpack_row = redis.call, cmsgpack.pack, cmsgpack.unpack
local time = call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local function steps_of(key)
  return string.sub(key, 1, -2) .. 's'
end
local function write(key, state, token, print, steps, job, replay, used, floor, lease, expires, crashed)
  local ttl = math.ceil(math.max(1, lease - now, expires - now))
  local packed = pack(state, token, print, steps, job, replay, used, floor, lease, expires, crashed)
  call('SET', key, packed, 'PX', ttl)
  if steps then call('PEXPIRE', steps_of(key), ttl) end
end
local function packed_if_held(key, token)
  local packed = call('GET', key)
  if not packed then return nil end
  local _, state, holder = cmsgpack.unpack_limit(packed, 2)
  return state == 'c' and holder == token and packed or nil
end
`

/**
 * Who may claim: {@link InboxStore.claim}. ARGV: lease, retention in ms; then token, fingerprint, job id, replay,
 * attempt of each key. Answers of each 0 = claimed, the first start, as asked | { 'claimed', attempt, crashed, steps } |
 * { 'completed', result } | { 'busy', ms } | { 'mismatch' } | { 'stale' }.
 */
export const claimScript: Script = script(
  `${rows}
local lease, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local ttl = math.max(1, lease, retention)
local function claimed(key, used, crashed, steps)
  return {'claimed', used, crashed, steps and call('HGETALL', steps_of(key)) or {}}
end
local function ask(key, token, print, job, replay, attempt)
  -- The fifth of a completed row is its result.
  local state, row_token, row_print, steps, row_job, row_replay, used, floor, held_until, expires, crashed =
    unpack_row(call('GET', key))
  if state == 'd' then return row_print == print and {'completed', row_job} or {'mismatch'} end
  -- This very call was sent twice.
  if state == 'c' and row_token == token then return claimed(key, used, crashed, steps) end
  local same_job = row_job == job
  local below_floor = replay < row_replay or replay == row_replay and attempt < floor
  local free = held_until <= now or state == 'r' and same_job
  local may
  if not free then
    may = false
  elseif expires <= now then
    used, floor, steps, crashed, may = attempt, attempt, false, 0, true
  elseif state == 'f' then
    may = not same_job or replay > row_replay
  else
    may = row_print == print and not (same_job and below_floor)
  end
  if may and expires > now then
    local anew = state == 'f' or same_job and replay > row_replay
    used = anew and attempt or math.max(attempt, used + 1)
    floor = same_job and replay == row_replay and math.max(attempt, floor) or attempt
    steps = steps and row_print == print
    crashed = state == 'c' and 1 or 0
  end
  if may then
    write(key, 'c', token, print, steps, job, replay, used, floor, now + lease, now + retention, crashed)
    return claimed(key, used, crashed, steps)
  end
  if same_job and (below_floor or state == 'f' and replay <= row_replay) then return {'stale'} end
  if state ~= 'f' and row_print ~= print then return {'mismatch'} end
  return {'busy', math.max(${minRetryAfterMs}, held_until - now)}
end
local answers = {}
for i, key in ipairs(KEYS) do
  local at = 5 * i - 2
  local token, print, job = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local replay, attempt = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  -- Nearly every key is new.
  local row = pack('c', token, print, false, job, replay, attempt, attempt, now + lease, now + retention, 0)
  if call('SET', key, row, 'PX', ttl, 'NX') then
    answers[i] = 0
  else
    answers[i] = ask(key, token, print, job, replay, attempt)
  end
end
return answers
`,
  { whenFull: true },
)

/** ARGV: lease in ms, then the token of each key. Answers 1 = held, here and below. */
export const renewScript: Script = script(
  `${rows}
local answers = {}
for i, key in ipairs(KEYS) do
  local packed = packed_if_held(key, ARGV[i + 1])
  if packed then
    local state, token, print, steps, job, replay, used, floor, _, expires, crashed = unpack_row(packed)
    write(key, state, token, print, steps, job, replay, used, floor, now + ARGV[1], expires, crashed)
  end
  answers[i] = packed and 1 or 0
end
return answers
`,
  { whenFull: true },
)

/** ARGV: token, step, result of each key. */
export const recordScript: Script = script(
  `${rows}
local answers = {}
for i, key in ipairs(KEYS) do
  local packed = packed_if_held(key, ARGV[3 * i - 2])
  if packed then
    local state, token, print, steps, job, replay, used, floor, lease, expires, crashed = unpack_row(packed)
    -- What an earlier row of this key left behind.
    if not steps then call('DEL', steps_of(key)) end
    call('HSET', steps_of(key), ARGV[3 * i - 1], ARGV[3 * i])
    if not steps then write(key, state, token, print, true, job, replay, used, floor, lease, expires, crashed) end
  end
  answers[i] = packed and 1 or 0
end
return answers
`,
  { whenFull: true },
)

/**
 * ARGV: retention in ms; then of each key its token, and how it ends: 'd' and the result if there is one, or 'f' or 'r'
 * with floor, 1 to give the start back, and how many ms it is held, each behind a space.
 */
export const endScript: Script = script(
  `${rows}
local retention = tonumber(ARGV[1])
local answers = {}
for i, key in ipairs(KEYS) do
  local packed, how = packed_if_held(key, ARGV[2 * i]), ARGV[2 * i + 1]
  if packed and string.sub(how, 1, 1) == 'd' then
    local _, _, _, print, steps = cmsgpack.unpack_limit(packed, 4)
    local done = pack('d', '', print, false, #how > 1 and string.sub(how, 2))
    call('SET', key, done, 'PX', math.max(1, retention))
    -- Nothing asks for the steps of a completed key again.
    if steps then call('DEL', steps_of(key)) end
  elseif packed then
    local state, floor, free, hold = string.match(how, '^(.) (%d+) (%d) (%d+)$')
    local _, _, print, steps, job, replay, used, old_floor = unpack_row(packed)
    floor = math.max(old_floor, tonumber(floor))
    write(key, state, '', print, steps, job, replay, used - free, floor, now + hold, now + retention, 0)
  end
  answers[i] = packed and 1 or 0
end
return answers
`,
  { whenFull: true },
)
