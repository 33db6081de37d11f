import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { IdemqError, systemClock } from '@idemq/core'
import { describe, expect, it, onTestFinished } from 'vitest'
import { tempFile } from '../test/temp-file.ts'
import { Database } from './database.ts'

const { signal } = new AbortController()

function open(path: string, busyTimeoutMs = 1_000): Database {
  const database = new Database({ path, clock: systemClock, busyTimeoutMs, pollMs: 15, synchronous: 'full' })
  const use = database.use('test')
  use.database()
  onTestFinished(() => use.close())
  return database
}

async function created(path = tempFile(), busyTimeoutMs?: number): Promise<Database> {
  const database = open(path, busyTimeoutMs)
  await database.prepare('create', signal)
  await database.write('make a table', signal, () => database.sql('CREATE TABLE IF NOT EXISTS fact (n)').run())
  return database
}

/** A connection of somebody else on the same file. */
function stranger(database: Database): DatabaseSync {
  const connection = new DatabaseSync(database.options.path)
  onTestFinished(() => {
    connection.close()
  })
  return connection
}

function insert(database: Database, n: number | string): void {
  database.sql('INSERT INTO fact (n) VALUES (?)').run(n)
}

function facts(connection: { prepare(sql: string): { all(): unknown[] } }): unknown[] {
  return connection
    .prepare('SELECT n FROM fact ORDER BY rowid')
    .all()
    .map((row) => (row as { n: unknown }).n)
}

describe('group commit', () => {
  it('commits what gathers in one turn together, and answers only then', async () => {
    const database = await created()
    const outside = stranger(database)
    const seen: unknown[][] = []
    const writes = [1, 2, 3].map((n) =>
      database.write('insert', signal, () => {
        insert(database, n)
        seen.push(facts(outside))
        return n
      }),
    )
    const first = writes[0]!.then(() => facts(outside))
    expect(await Promise.all(writes)).toEqual([1, 2, 3])
    expect(seen).toEqual([[], [], []])
    expect(await first).toEqual([1, 2, 3])
  })

  it('keeps a failure from spoiling those beside it', async () => {
    const database = await created()
    const boom = new Error('boom')
    const results = await Promise.allSettled([
      database.write('insert', signal, () => insert(database, 1)),
      database.write('fail', signal, () => {
        insert(database, 2)
        throw boom
      }),
      database.write('insert', signal, () => insert(database, 3)),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(results[1]).toMatchObject({ reason: boom })
    expect(facts(stranger(database))).toEqual([1, 3])
  })

  it('runs nothing of a write that was aborted before its turn, and never disowns one that ran', async () => {
    const database = await created()
    const before = new AbortController()
    const during = new AbortController()
    const given = database.write('insert', before.signal, () => insert(database, 1))
    const kept = database.write('insert', during.signal, () => {
      insert(database, 2)
      during.abort()
    })
    before.abort()
    await expect(given).rejects.toMatchObject({ code: 'ABORTED' })
    await kept
    await expect(database.write('insert', before.signal, () => insert(database, 3))).rejects.toMatchObject({
      code: 'ABORTED',
    })
    expect(facts(stranger(database))).toEqual([2])
  })
})

describe('the queue of writes', () => {
  it('goes on after whatever was thrown in it', async () => {
    const database = await created()
    let broken = true
    database.onTransaction(() => {
      if (broken) throw new Error('a listener threw')
    })
    const insertOne = (n: number) =>
      database.transact(
        (tx) => tx.query('INSERT INTO fact VALUES ($1)', [n]),
        () => true,
        signal,
      )
    const first = insertOne(1)
    const follower = first.then(() => database.write('insert', signal, () => insert(database, 2)))
    expect(await first).toMatchObject({ status: 'committed' })
    await follower
    broken = false
    await database.write('insert', signal, () => insert(database, 3))
    expect(await insertOne(4)).toMatchObject({ status: 'committed' })
    expect(facts(stranger(database))).toEqual([1, 2, 3, 4])
  })
})

describe('a locked file', () => {
  it('answers BROKER_BUSY after the time-out, lets the event loop turn meanwhile, and works again afterwards', async () => {
    const database = await created(tempFile(), 120)
    const outside = stranger(database)
    outside.exec('BEGIN IMMEDIATE')
    let turns = 0
    const ticking = setInterval(() => turns++, 1)
    const startedMs = performance.now()
    await expect(database.write('insert', signal, () => insert(database, 1))).rejects.toMatchObject({
      code: 'BROKER_BUSY',
      retryable: true,
      message: expect.stringContaining('cannot insert'),
    })
    clearInterval(ticking)
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(119)
    expect(turns).toBeGreaterThan(1)
    outside.exec('ROLLBACK')
    await database.write('insert', signal, () => insert(database, 2))
    expect(facts(outside)).toEqual([2])
  })

  it('is waited for', async () => {
    const database = await created()
    const outside = stranger(database)
    outside.exec('BEGIN IMMEDIATE; INSERT INTO fact VALUES (1)')
    const write = database.write('insert', signal, () => insert(database, 2))
    setTimeout(() => outside.exec('COMMIT'), 40)
    await write
    expect(facts(outside)).toEqual([1, 2])
  })

  it('can be read', async () => {
    const database = await created()
    stranger(database).exec('BEGIN IMMEDIATE; INSERT INTO fact VALUES (1)')
    expect(database.read('look', () => facts({ prepare: (sql) => database.sql(sql) }))).toEqual([])
  })
})

describe('a full file', () => {
  const large = 'x'.repeat(200_000)

  it('fails what needs room with BROKER_FULL, alone, and loses nothing', async () => {
    const database = await created()
    await database.write('insert', signal, () => insert(database, 1))
    const pages = database.sql('PRAGMA page_count').get() as { page_count: number }
    database.sql(`PRAGMA max_page_count = ${pages.page_count + 10}`).get()
    const results = await Promise.allSettled([
      database.write('remove', signal, () => database.sql('DELETE FROM fact WHERE n = 1').run()),
      database.write('insert', signal, () => insert(database, large)),
      database.write('insert', signal, () => insert(database, 2)),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(results[1]).toMatchObject({ reason: { code: 'BROKER_FULL', retryable: true } })
    expect(facts(stranger(database))).toEqual([2])
    database.sql('PRAGMA max_page_count = 100000').get()
    await database.write('insert', signal, () => insert(database, large))
    expect(facts(stranger(database))).toEqual([2, large])
  })

  it('undoes a transaction and goes on', async () => {
    const database = await created()
    const pages = database.sql('PRAGMA page_count').get() as { page_count: number }
    database.sql(`PRAGMA max_page_count = ${pages.page_count + 10}`).get()
    const full = database.transact(
      (tx) => tx.query('INSERT INTO fact VALUES ($1)', [large]),
      () => true,
      signal,
    )
    await expect(full).rejects.toMatchObject({ code: 'BROKER_FULL' })
    await database.write('insert', signal, () => insert(database, 1))
    expect(facts(stranger(database))).toEqual([1])
  })
})

describe('a file that cannot be used', () => {
  it('read-only: BROKER_READ_ONLY, and reads go on', async () => {
    const database = await created()
    database.sql('PRAGMA query_only = 1').get()
    await expect(database.write('insert', signal, () => insert(database, 1))).rejects.toMatchObject({
      code: 'BROKER_READ_ONLY',
      retryable: true,
    })
    expect(database.read('look', () => database.sql('SELECT 1 AS one').get())).toEqual({ one: 1 })
    database.sql('PRAGMA query_only = 0').get()
    await database.write('insert', signal, () => insert(database, 1))
  })

  it('no directory, or a directory in its place: BROKER_UNAVAILABLE', async () => {
    const path = tempFile()
    const lost = open(join(dirname(path), 'missing', 'jobs.db'))
    await expect(lost.prepare('create', signal)).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
    mkdirSync(path)
    await expect(open(path).prepare('create', signal)).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
  })

  it('not a database: QUEUE_MISMATCH, and it is left as it was', async () => {
    const path = tempFile()
    const text = 'Dear diary, today I was mistaken for a database. '.repeat(100)
    writeFileSync(path, text)
    const database = open(path)
    await expect(database.prepare('create', signal)).rejects.toMatchObject({ code: 'QUEUE_MISMATCH', retryable: false })
    expect(readFileSync(path, 'utf8')).toBe(text)
  })

  it('damaged: QUEUE_MISMATCH', async () => {
    const path = tempFile()
    const database = await created(path)
    await database.write('fill', signal, () => {
      for (let n = 0; n < 5_000; n++) insert(database, `row ${n}`)
    })
    database.sql('PRAGMA wal_checkpoint(TRUNCATE)').get()
    const whole = readFileSync(path).byteLength
    writeSync(openSync(path, 'r+'), Buffer.alloc(whole - 8_192, 0x5a), 0, whole - 8_192, 8_192)
    const reopened = open(path)
    await expect(
      reopened.write('count', signal, () => reopened.sql('SELECT count(*) FROM fact WHERE n > 0').get()),
    ).rejects.toMatchObject({ code: 'QUEUE_MISMATCH', message: expect.stringContaining('damaged') })
  })
})

describe('prepare', () => {
  it('check never creates, and says what to run', async () => {
    const path = tempFile()
    const missing = { code: 'QUEUE_MISSING', message: expect.stringContaining("declare: 'create'") }
    await expect(open(path).prepare('check', signal)).rejects.toMatchObject(missing)
    expect(existsSync(path)).toBe(false)
    new DatabaseSync(path).exec('CREATE TABLE mine (n)')
    await expect(open(path).prepare('check', signal)).rejects.toMatchObject(missing)
    const write = open(path)
    await expect(
      write.write('insert', signal, () => write.sql('INSERT INTO idemq_queue (name) VALUES (1)').run()),
    ).rejects.toMatchObject(missing)
  })

  it('creates beside tables of yours, again without harm, and from several connections at once', async () => {
    const path = tempFile()
    const mine = new DatabaseSync(path)
    mine.exec('CREATE TABLE mine (n); INSERT INTO mine VALUES (1)')
    mine.close()
    const databases = Array.from({ length: 5 }, () => open(path))
    await Promise.all(databases.map((database) => database.prepare('create', signal)))
    await databases[0]!.prepare('create', signal)
    await databases[1]!.prepare('check', signal)
    expect(databases[2]!.sql('SELECT n FROM mine').get()).toEqual({ n: 1 })
    expect(databases[3]!.sql('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' })
  })

  it('refuses a place where SQLite keeps no write-ahead log', async () => {
    await expect(open(':memory:').prepare('create', signal)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })

  it('refuses tables of a newer release', async () => {
    const database = await created()
    await database.write('upgrade', signal, () =>
      database.sql(`UPDATE idemq_meta SET value = 99 WHERE name = 'schema'`).run(),
    )
    for (const mode of ['create', 'check'] as const) {
      await expect(open(database.options.path).prepare(mode, signal)).rejects.toMatchObject({
        code: 'QUEUE_MISMATCH',
        message: expect.stringContaining('newer'),
      })
    }
  })
})

describe('transactions', () => {
  it('each stand alone: kept, lost, thrown and kept in one go', async () => {
    const database = await created()
    const boom = new Error('boom')
    const one = (n: number, held: boolean, failure?: Error) =>
      database.transact(
        async (tx) => {
          await tx.query('INSERT INTO fact VALUES ($1)', [n])
          if (failure) throw failure
          return n
        },
        () => held,
        signal,
      )
    const results = await Promise.allSettled([one(1, true), one(2, false), one(3, true, boom), one(4, true)])
    expect(results).toEqual([
      { status: 'fulfilled', value: { status: 'committed', value: 1 } },
      { status: 'fulfilled', value: { status: 'lost' } },
      { status: 'rejected', reason: boom },
      { status: 'fulfilled', value: { status: 'committed', value: 4 } },
    ])
    expect(facts(stranger(database))).toEqual([1, 4])
  })

  it('let no other write in, answer after the commit, and end for good', async () => {
    const database = await created()
    const outside = stranger(database)
    const order: string[] = []
    let goOn = (): void => {}
    const waiting = new Promise<void>((resolve) => {
      goOn = resolve
    })
    let begun = (): void => {}
    const started = new Promise<void>((resolve) => {
      begun = resolve
    })
    let kept: Parameters<Parameters<Database['transact']>[0]>[0] | undefined
    const transaction = database.transact(
      async (tx) => {
        kept = tx
        await tx.query('INSERT INTO fact VALUES (1)')
        begun()
        await waiting
        order.push('effect')
      },
      () => true,
      signal,
    )
    await started
    const write = database.write('insert', signal, () => {
      order.push('write')
      insert(database, 2)
    })
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect({ order: [...order], outside: facts(outside) }).toEqual({ order: [], outside: [] })
    goOn()
    await transaction
    expect(facts(outside)[0]).toBe(1)
    await write
    expect(order).toEqual(['effect', 'write'])
    await expect(kept!.query('SELECT 1')).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it('are rolled back when their caller gives up, so that a deaf handler blocks nobody', async () => {
    const database = await created()
    const giveUp = new AbortController()
    let kept: Parameters<Parameters<Database['transact']>[0]>[0] | undefined
    const deaf = database.transact(
      async (tx) => {
        kept = tx
        await tx.query('INSERT INTO fact VALUES (1)')
        giveUp.abort()
        await new Promise(() => {})
      },
      () => true,
      giveUp.signal,
    )
    await expect(deaf).rejects.toMatchObject({ code: 'ABORTED' })
    const outside = stranger(database)
    outside.exec('BEGIN IMMEDIATE; INSERT INTO fact VALUES (0); COMMIT')
    await database.write('insert', signal, () => insert(database, 2))
    expect(facts(outside)).toEqual([0, 2])
    await expect(kept!.query('SELECT 1')).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it('are rolled back too where the effect itself gave up before it first waited', async () => {
    const database = await created()
    const giveUp = new AbortController()
    const effect = (): Promise<void> => {
      giveUp.abort()
      return new Promise(() => {})
    }
    await expect(database.transact(effect, () => true, giveUp.signal)).rejects.toMatchObject({ code: 'ABORTED' })
    stranger(database).exec('BEGIN IMMEDIATE; ROLLBACK')
  })

  it('never call an effect whose caller gave up while it waited its turn', async () => {
    const database = await created()
    const [first, second] = [new AbortController(), new AbortController()]
    const late = new IdemqError('TIMEOUT', 'no more time')
    let called = false
    const running = database.transact(
      async (tx) => {
        await tx.query('INSERT INTO fact VALUES (1)')
        second.abort(late)
        first.abort(late)
        await new Promise(() => {})
      },
      () => true,
      first.signal,
    )
    const queued = database.transact(
      async () => {
        called = true
      },
      () => true,
      second.signal,
    )
    const outcomes = await Promise.allSettled([running, queued])
    expect(outcomes).toEqual([
      { status: 'rejected', reason: late },
      { status: 'rejected', reason: late },
    ])
    const outside = stranger(database)
    outside.exec('BEGIN IMMEDIATE; INSERT INTO fact VALUES (2); COMMIT')
    expect({ called, facts: facts(outside) }).toEqual({ called: false, facts: [2] })
  })

  it('keep nothing of a handler that goes on after SQLite undid its transaction', async () => {
    const database = await created()
    await database.write('make a trigger', signal, () =>
      database
        .sql(`CREATE TRIGGER undo BEFORE INSERT ON fact WHEN NEW.n < 0 BEGIN SELECT RAISE(ROLLBACK, 'below zero'); END`)
        .run(),
    )
    let ended = false
    const stubborn = database.transact(
      async (tx) => {
        await tx.query('INSERT INTO fact VALUES (1)')
        await tx.query('INSERT INTO fact VALUES (-1)').catch(() => {})
        await tx.query('INSERT INTO fact VALUES (2)').catch(() => {})
      },
      () => {
        ended = true
        return true
      },
      signal,
    )
    await expect(stubborn).rejects.toThrow('below zero')
    await database.write('insert', signal, () => insert(database, 3))
    expect({ ended, facts: facts(stranger(database)) }).toEqual({ ended: false, facts: [3] })
  })

  it('tell the others when one makes SQLite undo everything', async () => {
    const database = await created()
    await database.write('make a trigger', signal, () =>
      database
        .sql(`CREATE TRIGGER undo BEFORE INSERT ON fact WHEN NEW.n < 0 BEGIN SELECT RAISE(ROLLBACK, 'below zero'); END`)
        .run(),
    )
    const one = (n: number) =>
      database.transact(
        (tx) => tx.query('INSERT INTO fact VALUES ($1)', [n]),
        () => true,
        signal,
      )
    const [innocent, culprit, later] = await Promise.allSettled([one(1), one(-1), one(2)])
    expect(innocent).toMatchObject({ reason: { code: 'BROKER_UNAVAILABLE' } })
    expect(culprit).toMatchObject({ reason: { message: 'below zero' } })
    expect((culprit as { reason: unknown }).reason).not.toBeInstanceOf(IdemqError)
    expect(later).toMatchObject({ value: { status: 'committed' } })
    expect(facts(stranger(database))).toEqual([2])
  })
})

it('closes with its last user, writes what waits first, and refuses calls afterwards', async () => {
  const database = await created()
  const use = database.use('inbox')
  const write = use.database().write('insert', signal, () => insert(database, 1))
  await use.close()
  await write
  expect(() => use.database()).toThrow(expect.objectContaining({ code: 'CLOSED' }))
  expect(facts(stranger(database))).toEqual([1])
})
