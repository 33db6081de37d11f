/**
 * Who waits for work is woken by a bell: of this process at once, of others by NOTIFY. That is only a hint: whoever
 * waits also looks every `pollMs`, so nothing depends on it, and a pooler that cannot LISTEN takes nothing away.
 *
 * Commits that notify queue up behind one lock of the server. So at most one notification a topic and `gapMs` is sent:
 * within the statement that made the work where it is the first, else on its own afterwards.
 */
import { randomUUID } from 'node:crypto'
import { Doorbell, sleep } from '@idemq/core'
import type { PgClient } from './client.ts'
import { type Database, ignore } from './database.ts'
import type { Notification } from './messages.ts'

/** Rung where outbox rows may have been committed. */
export const outboxTopic = 'outbox'

const gapMs = 5
/** Pause after a failure to LISTEN. */
const retryMs = 2_000

interface Topic {
  readonly bell: Doorbell
  notifiedMs: number
  following: boolean
}

export class Wakeups {
  readonly #database: Database
  readonly #listen: boolean
  readonly #channel: string
  readonly #topics = new Map<string, Topic>()
  /** Tells our own notifications, which rang here already. */
  readonly #origin = randomUUID()
  #listening = false
  #client: PgClient | undefined
  #retryAtMs = Number.NEGATIVE_INFINITY

  constructor(database: Database, listen: boolean) {
    this.#database = database
    this.#listen = listen
    this.#channel = `idemq_${database.options.schema}`
    database.onClose(() => this.#drop())
  }

  bell(topic: string): Doorbell {
    return this.#topic(topic).bell
  }

  /**
   * The notification for a statement that makes work, to be sent by it; undefined if one was sent just now. Call
   * {@link announced} once it is committed.
   */
  announce(name: string): Notification | undefined {
    const topic = this.#topic(name)
    const nowMs = this.#database.options.clock.monotonicMs()
    if (topic.following || nowMs - topic.notifiedMs < gapMs) return undefined
    topic.notifiedMs = nowMs
    return { channel: this.#channel, payload: this.#payload(name) }
  }

  /** Work is committed: rings here, and elsewhere unless its statement `notified`. */
  announced(name: string, notified: boolean): void {
    const topic = this.#topic(name)
    topic.bell.ring()
    if (!notified) void this.#follow(name, topic)
  }

  /** Sees to it that notifications of other processes ring, as soon as a connection can be had. */
  ensureListening(): void {
    const { clock } = this.#database.options
    if (!this.#listen || this.#listening || clock.monotonicMs() < this.#retryAtMs) return
    this.#listening = true
    this.#connect().catch(() => {
      this.#retryAtMs = clock.monotonicMs() + retryMs
      this.#drop()
    })
  }

  #topic(name: string): Topic {
    let topic = this.#topics.get(name)
    if (!topic) {
      topic = {
        bell: new Doorbell(this.#database.options.clock),
        notifiedMs: Number.NEGATIVE_INFINITY,
        following: false,
      }
      this.#topics.set(name, topic)
    }
    return topic
  }

  #payload(name: string): string {
    return `${this.#origin} ${name}`
  }

  async #follow(name: string, topic: Topic): Promise<void> {
    if (topic.following) return
    topic.following = true
    const { clock } = this.#database.options
    const { closing } = this.#database
    await sleep(clock, Math.max(0, topic.notifiedMs + gapMs - clock.monotonicMs()), closing)
    topic.following = false
    topic.notifiedMs = clock.monotonicMs()
    // Nobody waits for it, and who missed it looks by itself.
    if (!closing.aborted)
      this.#database
        .run('notify', 'SELECT pg_notify($1, $2)', [this.#channel, this.#payload(name)], closing)
        .catch(ignore)
  }

  async #connect(): Promise<void> {
    const client = await this.#database.take(this.#database.closing)
    this.#client = client
    client.on?.('notification', (message) => {
      const [origin, ...name] = (message as { payload: string }).payload.split(' ')
      if (origin !== this.#origin) this.#topics.get(name.join(' '))?.bell.ring()
    })
    for (const event of ['error', 'end']) client.on?.(event, () => this.#drop())
    await client.query(`LISTEN "${this.#channel}"`)
    // What was announced before is not announced again.
    for (const { bell } of this.#topics.values()) bell.ring()
  }

  /** Closes the connection: back in the pool it would go on listening. */
  #drop(): void {
    const client = this.#client
    this.#client = undefined
    this.#listening = false
    if (client) this.#database.give(client, true)
  }
}
