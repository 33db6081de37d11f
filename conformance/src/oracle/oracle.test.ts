import { describe, expect, it } from 'vitest'
import { createOracle } from './oracle.ts'
import type { StatedBy, StatedEnd, Statement } from './statements.ts'
import type { Finals, Verdict } from './verdict.ts'

const scope = 'default/charge'
const key = 'charge:1'
const fingerprint = 'fp'
const quiet: Finals = { letters: [], rows: [], pending: 0 }

/** A log being written: each function says what a process would, under names that make tests read as stories. */
function story(): {
  say(by: string, ...statements: Statement[]): void
  attempt(jobId: string, changes?: Partial<Extract<Statement, { type: 'attempted' }>>): void
  enqueue(jobId: string, changes?: Partial<Extract<Statement, { type: 'attempted' }>>): void
  claim(by: string, token: string, jobId: string, version?: { attempt?: number; replay?: number; count?: number }): void
  start(by: string, token: string, jobId: string, startId: string, replay?: number): void
  end(by: string, token: string, end: Partial<StatedEnd>, held?: boolean): void
  charge(providerKey?: string): void
  judge(finals?: Partial<Finals>): Verdict
} {
  const oracle = createOracle()
  let calls = 0
  const say = (by: string, ...statements: Statement[]): void => {
    for (const statement of statements) oracle.add({ ...statement, by, atMs: 1_000 } as StatedBy)
  }
  const attempt: ReturnType<typeof story>['attempt'] = (jobId, changes = {}) => {
    const job = { jobId, job: 'charge', key, fingerprint, maxAttempts: 2, mayEnd: ['completed'] as const }
    say('producer', { type: 'attempted', ...job, effect: 'provider', ...changes })
  }
  return {
    say,
    attempt,
    enqueue(jobId, changes = {}) {
      attempt(jobId, changes)
      say('producer', { type: 'confirmed', jobId })
    },
    claim(by, token, jobId, { attempt = 1, replay = 0, count = attempt } = {}) {
      const call = `call-${++calls}`
      const claims = [{ scope, key, jobId, replay, attempt, fingerprint }]
      say(by, { type: 'claiming', call, claims })
      say(by, { type: 'claimed', call, answers: [{ status: 'claimed', token, attempt: count }] })
    },
    start(by, token, jobId, startId, replay = 0) {
      say(by, { type: 'started', scope, key, jobId, attempt: 1, replay, token, startId })
    },
    end(by, token, end, held = true) {
      const call = `call-${++calls}`
      const ends = [{ scope, key, token, state: 'completed', floor: 1, free: false, ...end } as StatedEnd]
      say(by, { type: 'ending', call, ends }, { type: 'ended', call, held: [held] })
    },
    charge: (providerKey = 'pk') => say('parent', { type: 'effect', businessKey: key, providerKey }),
    judge: (finals = {}) => oracle.judge({ ...quiet, ...finals }),
  }
}

const clean = { lost: 0, unexpected: 0, doubled: 0, attemptsOver: 0, staleWrites: 0 }

describe('lost', () => {
  it('is a confirmed job that came to no end, and not one that nobody was told of', () => {
    const { say, enqueue, judge } = story()
    enqueue('a')
    const job = { job: 'charge', key: 'other', fingerprint, maxAttempts: 2, mayEnd: [], effect: 'provider' } as const
    say('producer', { type: 'attempted', jobId: 'b', ...job })
    expect(judge().counts).toMatchObject({ ...clean, lost: 1, jobs: 1 })
  })

  it('is not a job that still lies in the broker', () => {
    const { enqueue, judge } = story()
    enqueue('a')
    enqueue('b', { key: 'charge:2' })
    expect(judge({ pending: 1 }).counts).toMatchObject({ ...clean, lost: 1 })
  })

  it('is not a completed job, a dead letter, or a duplicate of a completed key', () => {
    const { enqueue, claim, start, charge, end, judge } = story()
    enqueue('a')
    enqueue('b')
    enqueue('c', { key: 'charge:2', mayEnd: ['permanent'] })
    claim('w1', '1', 'a')
    start('w1', '1', 'a', 's1')
    charge()
    end('w1', '1', {})
    const letters = [{ jobId: 'c', reason: 'permanent', failures: 1, body: '' }]
    expect(judge({ letters }).counts).toMatchObject(clean)
  })

  it('is a duplicate that was settled as one though its payload differs', () => {
    const { enqueue, claim, charge, end, judge } = story()
    enqueue('a')
    enqueue('b', { fingerprint: 'other' })
    claim('w1', '1', 'a')
    charge()
    end('w1', '1', {})
    expect(judge().findings).toEqual([expect.stringContaining('job b is neither completed nor a dead letter')])
  })

  it('is a completion without its effect', () => {
    const { enqueue, claim, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    end('w1', '1', {})
    expect(judge().findings).toEqual(['lost: charge charge:1: completed without its effect'])
  })

  it('is raw bytes that are not a dead letter, byte for byte', () => {
    const { say, judge } = story()
    const [kept, dropped] = ['kept', 'dropped'].map((text) => Buffer.from(text).toString('base64')) as [string, string]
    for (const body of [kept, dropped]) {
      say('producer', { type: 'raw_attempted', body }, { type: 'raw_confirmed', body })
    }
    expect(judge({ letters: [{ body: kept }] }).findings).toEqual([`lost: bytes 'dropped' are no dead letter`])
  })

  it('is a job whose transaction committed and that never ran; one that rolled back must not run', () => {
    const { attempt, enqueue, say, judge } = story()
    attempt('kept', { startId: 's1' })
    attempt('undone', { startId: 's2', key: 'charge:2' })
    attempt('ghost', { startId: 's3', key: 'charge:3' })
    say('w1', { type: 'received', delivery: 'd1', copyId: 'ghost.0.1.0', jobId: 'ghost' })
    enqueue('reserve', { key: 'r', effect: 'row' })
    const { counts, findings, outbox } = judge({ rows: [{ key: 'r', startId: 's1' }], letters: [], pending: 0 })
    expect(counts).toMatchObject({ lost: 2, unexpected: 1 })
    expect(findings.join()).toMatch(/job kept is neither .* job reserve is neither .* job ghost exists/)
    expect(outbox).toEqual({ committed: 1, rolledBack: 2 })
  })

  it('is a transaction that was committed and whose row is gone', () => {
    const { attempt, enqueue, judge } = story()
    attempt('untold', { startId: 's1' })
    enqueue('told', { startId: 's2' })
    expect(judge().findings).toEqual(['lost: charge charge:1: the row of told is gone though it was committed'])
  })
})

describe('doubled', () => {
  it('is a start that was granted after the completion, by whomever', () => {
    const { enqueue, claim, start, charge, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    start('w1', '1', 'a', 's1')
    charge()
    end('w1', '1', {})
    claim('w2', '2', 'a')
    start('w2', '2', 'a', 's2')
    expect(judge().counts).toMatchObject({ ...clean, doubled: 1 })
  })

  it('is not a start after a crash in the handler', () => {
    const { enqueue, claim, start, charge, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    start('w1', '1', 'a', 's1')
    charge()
    claim('w2', '2', 'a', { count: 2 })
    start('w2', '2', 'a', 's2')
    charge()
    end('w2', '2', {})
    expect(judge().counts).toMatchObject(clean)
  })

  it('is not the late start of a worker that was stopped between its claim and its handler', () => {
    const { enqueue, claim, start, charge, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    claim('w2', '2', 'a', { count: 2 })
    start('w2', '2', 'a', 's2')
    charge()
    end('w2', '2', {})
    start('w1', '1', 'a', 's1')
    expect(judge().counts).toMatchObject(clean)
  })

  it('is a second charge of one business key, and a second row', () => {
    const { enqueue, claim, charge, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    charge('pk1')
    charge('pk2')
    end('w1', '1', {})
    const row = { key, startId: 's' }
    expect(judge({ rows: [row, row] }).counts).toMatchObject({ ...clean, doubled: 2 })
  })

  it('is a step that ran again under a claim asked for after its result was recorded', () => {
    const { enqueue, say, claim, start, charge, end, judge } = story()
    enqueue('a')
    claim('w1', '1', 'a')
    start('w1', '1', 'a', 's1')
    say('w1', { type: 'step_ran', scope, key, step: 'charge', startId: 's1' })
    charge()
    say('w1', { type: 'memo', scope, key, token: '1', step: 'charge' })
    claim('w2', '2', 'a', { count: 2 })
    start('w2', '2', 'a', 's2')
    say('w2', { type: 'step_ran', scope, key, step: 'charge', startId: 's2' })
    end('w2', '2', {})
    expect(judge().counts).toMatchObject({ ...clean, doubled: 1 })
  })
})

describe('attempts over', () => {
  function starts(count: number, between: (s: ReturnType<typeof story>, n: number) => void): Verdict {
    const s = story()
    s.enqueue('a')
    for (let n = 1; n <= count; n++) {
      s.claim('w1', `${n}`, 'a', { count: n })
      s.start('w1', `${n}`, 'a', `s${n}`)
      between(s, n)
    }
    s.charge()
    s.end('w1', `${count}`, {})
    return s.judge()
  }

  it('are starts of one series beyond maxAttempts', () => {
    expect(starts(2, () => {}).counts).toMatchObject(clean)
    expect(starts(4, () => {}).counts).toMatchObject({ ...clean, attemptsOver: 2 })
  })

  it('are not starts given back by a snooze or by a process that was told to stop', () => {
    const freely = { state: 'released', free: true } as const
    const snoozed = starts(4, ({ say, end }, n) => {
      if (n > 2) return
      say('w1', { type: 'snoozing', startId: `s${n}` })
      end('w1', `${n}`, freely)
    })
    expect(snoozed.counts).toMatchObject(clean)
    const stopped = starts(3, ({ say, end }, n) => {
      if (n > 1) return
      say('w1', { type: 'stopping' })
      end('w1', `${n}`, freely)
    })
    expect(stopped.counts).toMatchObject(clean)
  })

  it('are not starts whose giving back was refused because an earlier try, without an answer, had done it', () => {
    const given = (answered: boolean): Verdict =>
      starts(3, ({ say, end }, n) => {
        if (n > 1) return
        say('w1', { type: 'snoozing', startId: 's1' })
        const ends = [{ scope, key, token: '1', state: 'released', floor: 1, free: true }] as const
        if (!answered) say('w1', { type: 'ending', call: 'unanswered', ends })
        end('w1', '1', { state: 'released', free: true }, false)
      })
    expect(given(false).counts).toMatchObject(clean)
    expect(given(true).counts).toMatchObject({ ...clean, attemptsOver: 1 })
  })

  it('are starts given back for no reason that the harness knows', () => {
    const given = starts(4, ({ end }, n) => n < 4 && end('w1', `${n}`, { state: 'released', free: true }))
    expect(given.counts).toMatchObject({ ...clean, attemptsOver: 2 })
  })

  it('begin anew once the job is replayed, or failed and another takes the key', () => {
    const { enqueue, claim, start, end, charge, say, judge } = story()
    enqueue('a')
    enqueue('b')
    let token = 0
    const twice = (jobId: string, replay: number): void => {
      for (const count of [1, 2]) {
        claim('w1', `${++token}`, jobId, { replay, count })
        start('w1', `${token}`, jobId, `s${token}`, replay)
      }
    }
    twice('a', 0)
    end('w1', '2', { state: 'failed' })
    twice('a', 1)
    say('w1', { type: 'dead_stored', jobId: 'a' })
    twice('b', 0)
    charge()
    end('w1', '6', {})
    expect(judge({ letters: [{ jobId: 'a', reason: 'exhausted', body: '' }] }).counts).toMatchObject(clean)
  })
})

describe('stale writes', () => {
  it('are ends accepted after another was granted the key, and not ends before that or refused ones', () => {
    const late = (held: boolean): Verdict => {
      const { enqueue, claim, start, charge, end, judge } = story()
      enqueue('a')
      claim('w1', '1', 'a')
      start('w1', '1', 'a', 's1')
      claim('w2', '2', 'a', { count: 2 })
      start('w2', '2', 'a', 's2')
      charge()
      end('w1', '1', {}, held)
      end('w2', '2', {}, !held)
      return judge()
    }
    expect(late(true).counts).toMatchObject({ ...clean, staleWrites: 1 })
    expect(late(false).counts).toMatchObject(clean)
  })

  it('are settlements accepted after the same copy was delivered again', () => {
    const late = (prior: number): Verdict => {
      const { enqueue, say, judge } = story()
      enqueue('a')
      const copy = { type: 'received', copyId: 'a.0.1.0', jobId: 'a' } as const
      say('w1', { ...copy, delivery: 'd1', prior: 0 })
      say('w2', { ...copy, delivery: 'd2', prior })
      say('w1', { type: 'settling', delivery: 'd1' }, { type: 'settled', delivery: 'd1', status: 'settled' })
      return judge({ pending: 1 })
    }
    expect(late(1).counts).toMatchObject({ ...clean, staleWrites: 1 })
    // Another message of the same copy: its count starts anew.
    expect(late(0).counts).toMatchObject(clean)
  })
})

describe('unexpected', () => {
  it('is what nobody enqueued', () => {
    const { say, judge } = story()
    say('parent', { type: 'effect', businessKey: 'nobody', providerKey: 'pk' })
    say('w1', { type: 'received', delivery: 'd1', copyId: 'x.0.1.0', jobId: 'x' })
    const letters = [
      { jobId: 'y', reason: 'permanent', failures: 1, body: '' },
      { body: Buffer.from('z').toString('base64') },
    ]
    const { counts } = judge({ letters, rows: [{ key: 'r', startId: 's' }] })
    expect(counts).toMatchObject({ ...clean, unexpected: 5 })
  })

  it('is a copy before its time', () => {
    const { enqueue, say, judge } = story()
    enqueue('a')
    say('producer', { type: 'delaying', copyId: 'a.0.1.0', dueAtMs: 1_004 })
    say('producer', { type: 'delaying', copyId: 'a.0.2.0', dueAtMs: 1_100 })
    say('w1', { type: 'received', delivery: 'd1', copyId: 'a.0.1.0', jobId: 'a' })
    say('w1', { type: 'received', delivery: 'd2', copyId: 'a.0.2.0', jobId: 'a' })
    expect(judge({ pending: 1 }).findings).toEqual(['unexpected: copy a.0.2.0 was delivered 100 ms before its time'])
  })

  it('is a claim by a copy that has a successor, unless another job took the key in between', () => {
    const early = (between: (s: ReturnType<typeof story>) => void): number => {
      const s = story()
      s.enqueue('a')
      s.enqueue('b')
      s.claim('w1', '1', 'a')
      s.end('w1', '1', { state: 'released', floor: 2 })
      between(s)
      s.claim('w2', '3', 'a', { attempt: 1, count: 2 })
      return s.judge({ pending: 2 }).counts.unexpected
    }
    expect(early(() => {})).toBe(1)
    expect(early(({ claim }) => claim('w3', '2', 'b'))).toBe(0)
    const claims = [{ scope, key, jobId: 'b', replay: 0, attempt: 1, fingerprint }]
    expect(early(({ say }) => say('w3', { type: 'claiming', call: 'unanswered', claims }))).toBe(0)
  })

  it('is a dead letter that is exhausted with starts left, without failures, or for a strange reason', () => {
    const { enqueue, claim, judge } = story()
    enqueue('a')
    enqueue('b', { key: 'charge:2', mayEnd: ['permanent'] })
    enqueue('c', { key: 'charge:3' })
    claim('w1', '1', 'a')
    const letters = [
      { jobId: 'a', reason: 'exhausted', failures: 0, body: '' },
      { jobId: 'b', reason: 'permanent', failures: 0, body: '' },
      { jobId: 'c', reason: 'permanent', failures: 1, body: '' },
    ]
    expect(judge({ letters }).findings).toEqual([
      'unexpected: charge charge:1: dead letter of a is exhausted after 1 of 2 claims',
      'unexpected: charge charge:2: dead letter of b lost its failures',
      `unexpected: charge charge:3: dead letter of c for the reason 'permanent'`,
    ])
  })
})

it('tells what became of the jobs in hand at each place of death', () => {
  const { enqueue, say, claim, start, charge, end, judge } = story()
  enqueue('a')
  say('w1', { type: 'dying', where: 'worker.in_handler', jobIds: ['a', 'a', 'raw'] })
  claim('w2', '2', 'a', { count: 2 })
  start('w2', '2', 'a', 's2')
  charge()
  end('w2', '2', {})
  say('w2', { type: 'dying', where: 'worker.after_complete', jobIds: ['a'] })
  const common = { kills: 1, jobs: 1, completed: 1, dead: 0, absent: 0 }
  expect(judge().aftermath).toEqual([
    { where: 'worker.in_handler', startedAgain: 1, ...common },
    { where: 'worker.after_complete', startedAgain: 0, ...common },
  ])
})
