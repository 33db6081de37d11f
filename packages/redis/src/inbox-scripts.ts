/**
 * The inbox, as Lua: each script decides a batch of rows of one scope in one atomic step. A row is one packed string
 * that Redis itself deletes at the end of its retention: { state, token, lease until, expires, fingerprint, job id,
 * replay, used, floor, result or false, whether it has steps, 1 if the start before it crashed }. Its steps, where it has any, are a hash beside it.
 */
import { type Script, script } from './connection.ts'

const minRetryAfterMs = 50

const rows = `
local STATE, TOKEN, LEASE, EXPIRES, PRINT, JOB, REPLAY, USED, FLOOR, RESULT, STEPS, CRASHED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local function read(key)
  local packed = redis.call('GET', key)
  return packed and cmsgpack.unpack(packed)
end
local function steps_of(key)
  return string.sub(key, 1, -2) .. 's'
end
local function write(key, row)
  local ttl = math.ceil(math.max(1, row[LEASE] - now, row[EXPIRES] - now))
  redis.call('SET', key, cmsgpack.pack(row), 'PX', string.format('%.0f', ttl))
  if row[STEPS] then redis.call('PEXPIRE', steps_of(key), string.format('%.0f', ttl)) end
end
local function held(key, token)
  local row = read(key)
  return row and row[STATE] == 'claimed' and row[TOKEN] == token and row
end
`

/**
 * Who may claim: {@link InboxStore.claim}. ARGV: lease, retention in ms; then token, fingerprint, job id, replay,
 * attempt of each key. Answers of each { 'claimed', attempt, crashed, steps } | { 'completed', result } | { 'busy', ms } |
 * { 'mismatch' } | { 'stale' }.
 */
export const claimScript: Script = script(
  `${rows}
local lease, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers = {}
for i, key in ipairs(KEYS) do
  local at = 5 * i - 2
  local token, print, job = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local replay, attempt = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local row = read(key)
  local same_job = row and row[JOB] == job
  -- The lease of a released row is its hold: it keeps other jobs back.
  local free = row and (row[LEASE] <= now or row[STATE] == 'released' and same_job)
  if free and row[EXPIRES] <= now then row = nil end
  local below_floor = row and (replay < row[REPLAY] or replay == row[REPLAY] and attempt < row[FLOOR])
  local failed = row and row[STATE] == 'failed'
  local may
  if not row then
    may = true
  elseif not free or row[STATE] == 'completed' then
    may = false
  elseif failed then
    may = not same_job or replay > row[REPLAY]
  else
    may = row[PRINT] == print and not (same_job and below_floor)
  end
  if row and row[STATE] == 'claimed' and row[TOKEN] == token then
    -- This very call was sent twice.
    answers[i] = {'claimed', row[USED], row[CRASHED], row[STEPS] and redis.call('HGETALL', steps_of(key)) or {}}
  elseif may then
    local used, floor, steps, crashed = attempt, attempt, false, 0
    if row then
      if not (failed or same_job and replay > row[REPLAY]) then used = math.max(attempt, row[USED] + 1) end
      if same_job and replay == row[REPLAY] then floor = math.max(attempt, row[FLOOR]) end
      steps = row[STEPS] and row[PRINT] == print
      if row[STATE] == 'claimed' then crashed = 1 end
    end
    write(key, {'claimed', token, now + lease, now + retention, print, job, replay, used, floor, false, steps, crashed})
    answers[i] = {'claimed', used, crashed, steps and redis.call('HGETALL', steps_of(key)) or {}}
  elseif row[STATE] == 'completed' then
    answers[i] = row[PRINT] == print and {'completed', row[RESULT]} or {'mismatch'}
  elseif same_job and (below_floor or failed and replay <= row[REPLAY]) then
    answers[i] = {'stale'}
  elseif not failed and row[PRINT] ~= print then
    answers[i] = {'mismatch'}
  else
    answers[i] = {'busy', math.max(${minRetryAfterMs}, row[LEASE] - now)}
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
  local row = held(key, ARGV[i + 1])
  if row then
    row[LEASE] = now + ARGV[1]
    write(key, row)
  end
  answers[i] = row and 1 or 0
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
  local row = held(key, ARGV[3 * i - 2])
  if row then
    local steps = steps_of(key)
    -- What an earlier row of this key left behind.
    if not row[STEPS] then redis.call('DEL', steps) end
    redis.call('HSET', steps, ARGV[3 * i - 1], ARGV[3 * i])
    row[STEPS] = true
    write(key, row)
  end
  answers[i] = row and 1 or 0
end
return answers
`,
  { whenFull: true },
)

/**
 * ARGV: retention in ms; then token, state, floor, '1' to give the start back, for how many ms a released key is held,
 * '1' if it has a result, the result of each key.
 */
export const endScript: Script = script(
  `${rows}
local answers = {}
for i, key in ipairs(KEYS) do
  local at = 7 * i - 5
  local row = held(key, ARGV[at])
  if row then
    row[STATE] = ARGV[at + 1]
    row[FLOOR] = math.max(row[FLOOR], tonumber(ARGV[at + 2]))
    if ARGV[at + 3] == '1' then row[USED] = row[USED] - 1 end
    row[RESULT] = ARGV[at + 5] == '1' and ARGV[at + 6]
    row[LEASE] = row[STATE] == 'released' and now + ARGV[at + 4] or now
    row[EXPIRES] = now + ARGV[1]
    -- Most rows are completed ones that wait for their retention to end: they keep no more than an answer needs.
    row[TOKEN] = ''
    if row[STATE] == 'completed' then row[JOB] = '' end
    -- Nothing asks for the steps of a completed key again.
    if row[STATE] == 'completed' and row[STEPS] then
      redis.call('DEL', steps_of(key))
      row[STEPS] = false
    end
    write(key, row)
  end
  answers[i] = row and 1 or 0
end
return answers
`,
  { whenFull: true },
)
