import { type Clock, sleep } from './clock.ts'
import type { DeadLetterRecord, Driver, QueueRef, Visit } from './driver.ts'
import { type DeadReason, type Envelope, timeMs, wireTime } from './envelope.ts'
import { IdemqError } from './errors.ts'
import { type Events, jobRef } from './events.ts'
import { codecOf, outgoingOf } from './internal/codec.ts'
import { reach } from './internal/crash-points.ts'
import type { Sender } from './internal/sender.ts'

/** Selects dead letters; every field given must match. */
export interface DeadLetterFilter {
  readonly reason?: DeadReason
  /** Name of the last failure, e.g. 'CardDeclined'. */
  readonly error?: string
  /** Job name. */
  readonly job?: string
  readonly jobIds?: readonly string[]
  readonly idempotencyKey?: string
  /** Dead-lettered at or after, epoch milliseconds. */
  readonly sinceMs?: number
  /** Dead-lettered before, epoch milliseconds. */
  readonly untilMs?: number
  /** Anything else. */
  readonly where?: (letter: DeadLetter) => boolean
}

export interface DeadLetter {
  /** The broker's handle. */
  readonly id: string
  readonly reason: DeadReason
  /** Name of the last failure, or of the reason where nothing failed. */
  readonly error: string
  readonly message: string
  /** Absent where the bytes are no envelope this release reads. */
  readonly envelope: Envelope | undefined
  /** As it was stored. */
  readonly body: Uint8Array
  readonly deadAtMs: number | undefined
  /** Sends it back to its queue: same identity, `replay + 1`, attempts from 1; then removes the letter. */
  replay(): Promise<void>
  /** Removes it for good once the scan moves on. */
  remove(): void
}

/** Dead letters of one cause. */
export interface DeadLetterGroup {
  readonly error: string
  readonly reason: DeadReason
  readonly job: string | undefined
  readonly count: number
  readonly latestAtMs: number | undefined
  /** The message of the latest. */
  readonly message: string
}

export interface ReplayOptions {
  readonly filter?: DeadLetterFilter
  /** Only counts. @default false */
  readonly dryRun?: boolean
  /** At most so many a second. @default unlimited */
  readonly perSecond?: number
  /** At most so many in all. @default unlimited */
  readonly limit?: number
  readonly signal?: AbortSignal
}

export interface ReplayResult {
  /** Letters the filter selected. */
  readonly matched: number
  readonly replayed: number
  /** Selected, but not an envelope this release reads: left where they are. */
  readonly unreadable: number
  /** The whole dead-letter queue was looked at. */
  readonly complete: boolean
}

export interface DeadLettersHost {
  readonly driver: Driver
  readonly sender: Sender
  readonly events: Events
  readonly clock: Clock
  readonly ready: () => Promise<void>
}

/** The dead letters of one queue. Looking changes nothing, however often. */
export class DeadLetters {
  readonly #queue: QueueRef
  readonly #host: DeadLettersHost

  constructor(queue: QueueRef, host: DeadLettersHost) {
    this.#queue = queue
    this.#host = host
  }

  /** Letters that match, oldest first. What is not replayed or removed while the loop is at it stays. */
  scan(filter: DeadLetterFilter = {}, signal?: AbortSignal): AsyncGenerator<DeadLetter, void, undefined> {
    return this.#scan(filter, signal, { complete: false })
  }

  /** `seen.complete` is set where the driver reached the end. */
  async *#scan(
    filter: DeadLetterFilter,
    signal: AbortSignal | undefined,
    seen: { complete: boolean },
  ): AsyncGenerator<DeadLetter, void, undefined> {
    const { driver, ready } = this.#host
    await ready()
    // The driver pushes and a loop pulls: each visit waits until the loop asks for the next letter.
    const turn = new Turns<LetterInHand>()
    const abort = new AbortController()
    const onAbort = (): void => abort.abort(signal?.reason)
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort)
    const scanning = driver
      .scanDead(
        this.#queue,
        async (record) => {
          const letter = this.#read(record)
          if (!matches(letter, filter)) return 'keep'
          return turn.offer(letter)
        },
        abort.signal,
      )
      .then(
        ({ complete }) => {
          seen.complete = complete
          turn.end()
        },
        (error) => turn.end(error),
      )
    try {
      for (;;) {
        const letter = await turn.next()
        if (!letter) return
        yield letter
        turn.answer(letter.removed ? 'remove' : 'keep')
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
      turn.answer(turn.current?.removed ? 'remove' : 'stop')
      turn.close()
      await scanning
    }
  }

  /** Counted by error, largest first. `limit`: look at so many letters at most. @default all */
  async groups(
    filter: DeadLetterFilter = {},
    options: { readonly limit?: number; readonly signal?: AbortSignal } = {},
  ): Promise<DeadLetterGroup[]> {
    const { limit = Number.POSITIVE_INFINITY, signal } = options
    const groups = new Map<string, DeadLetterGroup>()
    let seen = 0
    for await (const { error, reason, envelope, deadAtMs, message } of this.scan(filter, signal)) {
      if (seen++ >= limit) break
      const key = `${error}\0${reason}\0${envelope?.name}`
      const group = groups.get(key)
      const latest = !group || (deadAtMs ?? 0) >= (group.latestAtMs ?? 0)
      groups.set(key, {
        error,
        reason,
        job: envelope?.name,
        count: (group?.count ?? 0) + 1,
        latestAtMs: latest ? deadAtMs : group.latestAtMs,
        message: latest ? message : group.message,
      })
    }
    return [...groups.values()].sort((a, b) => b.count - a.count)
  }

  /**
   * Sends the selected letters back to their queue, each stored there before its letter is removed: a crash in between
   * leaves both, and the inbox runs one.
   * @throws IdemqError INVALID_OPTION, and what the broker says; what was replayed until then stays replayed
   */
  async replay(options: ReplayOptions = {}): Promise<ReplayResult> {
    const { filter = {}, dryRun = false, perSecond, limit = Number.POSITIVE_INFINITY, signal } = options
    if (perSecond !== undefined && !(perSecond > 0)) {
      throw new IdemqError('INVALID_OPTION', `replay: perSecond is ${perSecond}, must be above 0`)
    }
    const { clock } = this.#host
    const startedAtMs = clock.monotonicMs()
    const result = { matched: 0, replayed: 0, unreadable: 0 }
    const seen = { complete: false }
    for await (const letter of this.#scan(filter, signal, seen)) {
      if (result.matched >= limit) return { ...result, complete: false }
      result.matched++
      if (!letter.envelope) {
        result.unreadable++
      } else if (!dryRun) {
        const dueAtMs = perSecond ? startedAtMs + (result.replayed / perSecond) * 1_000 : 0
        if (dueAtMs > clock.monotonicMs()) await sleep(clock, dueAtMs - clock.monotonicMs(), signal)
        if (signal?.aborted) return { ...result, complete: false }
        await letter.replay()
        result.replayed++
      }
    }
    return { ...result, ...seen }
  }

  /** Removes the selected letters for good; returns how many. An empty filter is refused: say `{ where: () => true }`. */
  async remove(filter: DeadLetterFilter, signal?: AbortSignal): Promise<number> {
    if (Object.values(filter).every((value) => value === undefined)) {
      throw new IdemqError('INVALID_OPTION', 'remove: an empty filter would remove every dead letter')
    }
    let removed = 0
    for await (const letter of this.scan(filter, signal)) {
      letter.remove()
      removed++
    }
    return removed
  }

  #read({ id, body }: DeadLetterRecord): LetterInHand {
    const { driver } = this.#host
    let envelope: Envelope | undefined
    let unread: IdemqError | undefined
    try {
      envelope = codecOf(driver).decode(body)
    } catch (error) {
      unread = error as IdemqError
    }
    const failure = envelope?.failures?.at(-1)
    const reason: DeadReason =
      envelope?.dead?.reason ?? (unread?.code === 'UNSUPPORTED_VERSION' ? 'unsupported_version' : 'malformed')
    const failed = reason === 'permanent' || reason === 'exhausted' || reason === 'invalid_payload'
    const letter: LetterInHand = {
      id,
      reason,
      error: (failed && failure?.name) || reason,
      message: unread?.message ?? (failed ? failure?.message : undefined) ?? reasonMessages[reason],
      envelope,
      body,
      deadAtMs: envelope?.dead ? timeMs(envelope.dead.at) : undefined,
      removed: false,
      remove() {
        letter.removed = true
      },
      replay: () => this.#replay(letter),
    }
    return letter
  }

  async #replay(letter: LetterInHand): Promise<void> {
    const { driver, sender, events, clock } = this.#host
    if (!letter.envelope) {
      throw new IdemqError('INVALID_ENVELOPE', `dead letter ${letter.id} cannot be replayed: ${letter.message}`)
    }
    const { dead: _, hop: __, not_before: ___, expires_at: ____, unknown_since: _____, ...kept } = letter.envelope
    const copy: Envelope = { ...kept, attempt: 1, replay: kept.replay + 1, created_at: wireTime(clock.now()) }
    const body = codecOf(driver).encode(copy)
    await sender.send(this.#queue, outgoingOf(copy, body, 0), clock.monotonicMs() + replayTimeoutMs)
    reach('replay.after_copy', () => [copy.job_id])
    if (events.wants('replayed')) events.emit('replayed', jobRef(copy, this.#queue.name, this.#queue.group))
    letter.removed = true
  }
}

const replayTimeoutMs = 30_000

/** What a reason means, where no failure says more. */
const reasonMessages: Readonly<Record<DeadReason, string>> = {
  permanent: 'retrying cannot help',
  exhausted: 'every attempt was used up, the last in a crash',
  invalid_payload: 'the payload does not match the schema of its job',
  key_mismatch: 'another payload is claimed or completed under its idempotency key',
  unknown_job: 'no worker knew its name for 15 minutes',
  expired: 'it expired before it started',
  delivery_limit: 'it was delivered a thousand times without being claimed',
  malformed: 'it is no envelope',
  unsupported_version: 'its envelope version is unknown here',
}

type LetterInHand = DeadLetter & { removed: boolean }

function matches(letter: DeadLetter, filter: DeadLetterFilter): boolean {
  const { reason, error, job, jobIds, idempotencyKey, sinceMs, untilMs, where } = filter
  const { envelope, deadAtMs } = letter
  return (
    (reason === undefined || letter.reason === reason) &&
    (error === undefined || letter.error === error) &&
    (job === undefined || envelope?.name === job) &&
    (jobIds === undefined || (envelope !== undefined && jobIds.includes(envelope.job_id))) &&
    (idempotencyKey === undefined || envelope?.idempotency_key === idempotencyKey) &&
    (sinceMs === undefined || (deadAtMs !== undefined && deadAtMs >= sinceMs)) &&
    (untilMs === undefined || (deadAtMs !== undefined && deadAtMs < untilMs)) &&
    (where === undefined || where(letter))
  )
}

/** A rendezvous of one: an offer waits for the answer of whoever takes it. */
class Turns<T> {
  current: T | undefined
  #answer: ((visit: Visit) => void) | undefined
  #wanted: (() => void) | undefined
  #ended = false
  #error: unknown
  #closed = false

  offer(item: T): Promise<Visit> {
    if (this.#closed) return Promise.resolve('stop')
    this.current = item
    return new Promise((resolve) => {
      this.#answer = resolve
      this.#wanted?.()
    })
  }

  answer(visit: Visit): void {
    const answer = this.#answer
    this.#answer = undefined
    this.current = undefined
    answer?.(visit)
  }

  end(error?: unknown): void {
    this.#ended = true
    this.#error = error
    this.#wanted?.()
  }

  close(): void {
    this.#closed = true
  }

  async next(): Promise<T | undefined> {
    while (!this.#answer && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wanted = resolve
      })
    }
    if (this.#answer) return this.current
    if (this.#error !== undefined) throw this.#error
    return undefined
  }
}
