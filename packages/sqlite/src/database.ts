/**
 * One SQLite file, shared by the driver and the stores of this process: its tables, and one queue through which every
 * write goes.
 *
 * Group commit: what gathers until the next turn of the event loop, or while a transaction is open, is written in one
 * BEGIN IMMEDIATE … COMMIT, so the cost of making it durable is shared. A result is known only after that COMMIT. If
 * one write fails, the transaction is rolled back and each is run alone: a failure never spoils another.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { StatementSync } from 'node:sqlite'
import { type Clock, IdemqError, type SqlTransaction } from '@idemq/core'
import { Connection, type ConnectionOptions, nextTurn } from './connection.ts'
import { FileTime } from './file-time.ts'
import { migrations } from './schema.ts'
import { fileError, statementError, tablesMissing } from './sqlite-error.ts'
import { type OpenTransaction, openTransaction } from './transaction.ts'

export interface DatabaseOptions extends ConnectionOptions {
  readonly clock: Clock
  readonly pollMs: number
}

/** The use one driver or store makes of a database. */
export interface Use {
  /** @throws IdemqError CLOSED */
  database(): Database
  /** The connection is closed when nobody uses it any more. Idempotent. */
  close(): Promise<void>
}

/** A group takes no more members after this, so that neither the event loop nor other processes wait for long. */
const maxGroupMs = 20
const never = new AbortController().signal

interface Task<T> {
  readonly what: string
  /** False: the caller gave up before, it must not run. True: from now on an abort no longer rejects it. */
  start(): boolean
  resolve(value: T): void
  reject(error: unknown): void
}

interface Write {
  readonly task: Task<unknown>
  readonly work: () => unknown
}

interface Transaction {
  readonly task: Task<TransactionOutcome<unknown>>
  /** Runs the effect and, as its last statement, the end; `held` is false where that found nothing to end. */
  readonly run: (tx: OpenTransaction) => Promise<{ readonly value: unknown; readonly held: boolean }>
}

type TransactionOutcome<T> = { readonly status: 'committed'; readonly value: T } | { readonly status: 'lost' }

export class Database {
  readonly options: DatabaseOptions
  readonly #connection: Connection
  readonly #holders = new Set<object>()
  #writes: Write[] = []
  #transactions: Transaction[] = []
  /** Settles when the queue is empty. */
  #draining: Promise<void> | undefined
  readonly #commitListeners = new Set<() => void>()
  /** The transaction whose effect the running code belongs to. */
  readonly #effect = new AsyncLocalStorage<OpenTransaction | undefined>()
  readonly #time: FileTime
  /** Within the work of a write, which may keep the time. */
  #working = false
  #keepingTime = false

  constructor(options: DatabaseOptions) {
    this.options = options
    this.#time = new FileTime(options.clock)
    this.#connection = new Connection(options)
  }

  use(name: string): Use {
    const holder = {}
    let closed = false
    return {
      database: () => {
        if (closed) throw new IdemqError('CLOSED', `the ${name} on ${this.options.path} is closed`)
        this.#holders.add(holder)
        return this
      },
      close: async () => {
        closed = true
        this.#holders.delete(holder)
        while (this.#draining) await this.#draining
        if (this.#holders.size === 0) this.#connection.close()
      },
    }
  }

  /** Calls back after each COMMIT of users' transactions. */
  onTransaction(listener: () => void): void {
    this.#commitListeners.add(listener)
  }

  /** The prepared statement for `sql`; it is kept, so `sql` must be one of a fixed few. */
  sql(sql: string): StatementSync {
    return this.#connection.sql(sql)
  }

  /** The first of `count` fencing tokens that nobody ever had. Only within a {@link write}. */
  nextTokens(count: number): number {
    const row = this.sql(`UPDATE idemq_meta SET value = value + ? WHERE name = 'token' RETURNING value`).get(count)
    return (row as { value: number }).value - count + 1
  }

  /** The time in the file, in whole epoch milliseconds. It never goes back, whatever the wall clock does. */
  now(): number {
    const { value: keptMs } = this.sql(`SELECT value FROM idemq_meta WHERE name = 'time'`).get() as { value: number }
    const nowMs = this.#time.now(keptMs)
    if (this.#working && this.#time.isWorthKeeping(nowMs, keptMs)) {
      this.sql(`UPDATE idemq_meta SET value = ? WHERE name = 'time'`).run(nowMs)
    } else if (!this.#keepingTime && this.#time.isUrgent(nowMs, keptMs)) {
      this.#keepingTime = true
      const done = (): void => {
        this.#keepingTime = false
      }
      // If it fails, the next look tries again.
      this.#effect.run(undefined, () => this.write('keep the time', never, () => this.now())).then(done, done)
    }
    return nowMs
  }

  /** Reads without a transaction or a lock: one consistent state for each statement. */
  read<T>(what: string, work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw statementError(error, what, this.options.path)
    }
  }

  /**
   * Runs `work` in the next group; resolves with its result once that is committed. Aborting before it ran rejects and
   * writes nothing.
   * @throws IdemqError BROKER_BUSY, BROKER_FULL, BROKER_READ_ONLY, BROKER_UNAVAILABLE, QUEUE_MISSING; UNSUPPORTED from
   *   within the effect of a transaction, which it would wait for; ABORTED, or the signal's own reason if it is one of ours
   */
  write<T>(what: string, signal: AbortSignal, work: () => T): Promise<T> {
    return this.#enqueue<T>(what, signal, (task) => this.#writes.push({ task: task as Task<unknown>, work }))
  }

  /**
   * Runs `effect`, then `end` as the last statement, in a transaction that no other write of this process enters.
   * Transactions that wait together share a COMMIT, each in a savepoint of its own. `end` answering false, a throw and
   * an abort of `signal` roll this one back, at once, whether or not the effect listens; one that aborts before the
   * effect was called keeps it from being called.
   */
  transact<T>(
    effect: (tx: SqlTransaction) => Promise<T>,
    end: (value: T) => boolean,
    signal: AbortSignal,
  ): Promise<TransactionOutcome<T>> {
    const run: Transaction['run'] = async (tx) => {
      const value = await unlessAborted(async () => this.#effect.run(tx, effect, tx), signal)
      tx.assertIntact()
      return { value, held: this.#work(() => end(value)) }
    }
    return this.#enqueue<TransactionOutcome<T>>('run a transaction', signal, (task) =>
      this.#transactions.push({ task: task as Task<TransactionOutcome<unknown>>, run }),
    )
  }

  /**
   * Creates or migrates the tables ('create'), or only looks.
   * @throws IdemqError QUEUE_MISSING saying what to run, QUEUE_MISMATCH for tables of another release
   */
  async prepare(mode: 'create' | 'check', signal: AbortSignal): Promise<void> {
    if (mode === 'create') {
      try {
        await this.#connection.create()
      } catch (error) {
        throw statementError(error, 'open', this.options.path)
      }
    }
    const version = this.read('look at the tables', () => this.#version())
    const known = migrations.length
    if (version === known) return
    if (version > known) throw mismatch(this.options.path, version, `newer than ${known}, the one known here: upgrade`)
    if (mode === 'check') {
      if (version === 0) throw tablesMissing(this.options.path)
      throw mismatch(this.options.path, version, `older than ${known}: migrate once with { declare: 'create' }`)
    }
    await this.write('create the tables', signal, () => {
      // Another process may have been first.
      for (let from = this.#version(); from < known; from++) {
        this.#connection.native().exec(migrations[from]!)
        this.sql(`UPDATE idemq_meta SET value = ? WHERE name = 'schema'`).run(from + 1)
      }
    })
  }

  #version(): number {
    const tables = this.sql(
      `SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = 'idemq_meta'`,
    ).get()
    if ((tables as { n: number }).n === 0) return 0
    return (this.sql(`SELECT value FROM idemq_meta WHERE name = 'schema'`).get() as { value: number }).value
  }

  #enqueue<T>(what: string, signal: AbortSignal, add: (task: Task<T>) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#effect.getStore()?.isOpen()) {
        const advice = 'write through tx; to enqueue a job use outbox.enqueue(tx, …)'
        throw new IdemqError('UNSUPPORTED', `sqlite: cannot ${what} within the effect of a transaction: ${advice}`)
      }
      const abort = (): void => reject(aborted(what, signal))
      if (signal.aborted) {
        abort()
        return
      }
      signal.addEventListener('abort', abort, { once: true })
      let started = false
      const start = (): boolean => {
        started ||= !signal.aborted
        signal.removeEventListener('abort', abort)
        return started
      }
      add({
        what,
        start,
        resolve,
        reject(error) {
          start()
          reject(error)
        },
      })
      this.#draining ??= this.#drain()
    })
  }

  async #drain(): Promise<void> {
    try {
      await nextTurn()
      while (this.#writes.length > 0 || this.#transactions.length > 0) {
        const inHand = [...this.#writes, ...this.#transactions]
        try {
          if (this.#writes.length > 0) await this.#commitTogether(this.#writes.splice(0))
          if (this.#transactions.length > 0) await this.#commitTransactions()
        } catch (error) {
          // Whatever went wrong, those it was about do not wait for ever, and the others get their turn.
          const waiting = new Set<Write | Transaction>([...this.#writes, ...this.#transactions])
          for (const each of inHand) {
            if (!waiting.has(each)) each.task.reject(statementError(error, each.task.what, this.options.path))
          }
        }
        await nextTurn()
      }
    } finally {
      this.#draining = undefined
    }
  }

  #work<T>(work: () => T): T {
    this.#working = true
    try {
      return work()
    } finally {
      this.#working = false
    }
  }

  async #commitTogether(writes: readonly Write[]): Promise<void> {
    const done: { readonly write: Write; readonly result: unknown }[] = []
    let next = 0
    try {
      await this.#connection.begin()
    } catch (error) {
      for (const { task } of writes) task.reject(statementError(error, task.what, this.options.path))
      return
    }
    try {
      const endMs = performance.now() + maxGroupMs
      do {
        const write = writes[next++]!
        if (write.task.start()) done.push({ write, result: this.#work(write.work) })
      } while (next < writes.length && performance.now() < endMs)
      this.sql('COMMIT').run()
    } catch (error) {
      this.#connection.rollback()
      const [alone, ...others] = writes
      if (others.length === 0) alone!.task.reject(statementError(error, alone!.task.what, this.options.path))
      else for (const write of writes) await this.#commitTogether([write])
      return
    }
    for (const { write, result } of done) write.task.resolve(result)
    this.#writes.unshift(...writes.slice(next))
  }

  async #commitTransactions(): Promise<void> {
    const members: Transaction[] = []
    const kept: (() => void)[] = []
    try {
      await this.#connection.begin()
    } catch (error) {
      for (const { task } of this.#transactions.splice(0)) task.reject(fileError(error, task.what, this.options.path))
      return
    }
    try {
      const endMs = performance.now() + maxGroupMs
      do {
        const member = this.#transactions.shift()!
        if (!member.task.start()) continue
        members.push(member)
        const keep = await this.#runInSavepoint(member)
        if (keep) kept.push(keep)
      } while (this.#transactions.length > 0 && performance.now() < endMs)
      this.sql('COMMIT').run()
    } catch (error) {
      // The file failed, and SQLite undid all of it. Nobody was told 'committed' yet.
      this.#connection.rollback()
      for (const { task } of members) task.reject(fileError(error, task.what, this.options.path))
      return
    }
    for (const keep of kept) keep()
    if (kept.length > 0) for (const listener of this.#commitListeners) listener()
  }

  /**
   * The answer to give once all is committed, or undefined if nothing is kept.
   * @throws what made SQLite undo the whole transaction
   */
  async #runInSavepoint({ task, run }: Transaction): Promise<(() => void) | undefined> {
    this.sql('SAVEPOINT idemq').run()
    const tx = openTransaction(this.#connection.native(), this.options.path)
    let keep: (() => void) | undefined
    let failure: { readonly error: unknown } | undefined
    try {
      const { value, held } = await run(tx)
      if (held) keep = () => task.resolve({ status: 'committed', value })
    } catch (error) {
      failure = { error: fileError(error, task.what, this.options.path) }
    } finally {
      tx.close()
    }
    try {
      if (!keep) this.sql('ROLLBACK TO idemq').run()
      this.sql('RELEASE idemq').run()
    } catch (cause) {
      if (failure) task.reject(failure.error)
      throw new IdemqError('BROKER_UNAVAILABLE', 'sqlite: an error undid this transaction and those beside it', cause)
    }
    if (failure) task.reject(failure.error)
    else if (!keep) task.resolve({ status: 'lost' })
    return keep
  }
}

function mismatch(path: string, version: number, what: string): IdemqError {
  return new IdemqError('QUEUE_MISMATCH', `sqlite: the idemq tables in ${path} are of version ${version}, ${what}`)
}

function aborted(what: string, { reason }: AbortSignal): IdemqError {
  if (reason instanceof IdemqError) return reason
  return new IdemqError('ABORTED', `sqlite: the caller gave up waiting to ${what}`, reason)
}

/** What `run` resolves with, unless `signal` aborts first: then it is left to itself. */
async function unlessAborted<T>(run: () => Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = (): void => {}
  const abort = new Promise<never>((_, reject) => {
    stop = () => reject(aborted('end a transaction', signal))
    signal.addEventListener('abort', stop)
  })
  try {
    return await Promise.race([abort, run()])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
