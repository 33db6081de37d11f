import type { Committed, Connection, GroupMember } from './client.ts'
import type { Feed } from './feed.ts'
import type { Progress } from './ledger.ts'
import { groupVerdict, type Membership } from './membership.ts'

/**
 * Writes what is done and what was started, for all partitions that changed, one commit at a time: what changes while
 * one is under way is the next. A commit says what is so now, so repeating one that failed is always right.
 */
export class Committer {
  readonly #connection: Connection
  readonly #group: string
  readonly #membership: Membership
  readonly #changed = new Set<Feed>()
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(connection: Connection, group: string, membership: Membership) {
    this.#connection = connection
    this.#group = group
    this.#membership = membership
  }

  note(feed: Feed): void {
    this.#changed.add(feed)
  }

  /**
   * Resolves once all that was noted is written, or its partition is not ours any more.
   * @throws IdemqError where neither is known; it stays noted
   */
  flush(): Promise<void> {
    if (this.#changed.size === 0) return this.#running ?? Promise.resolve()
    if (!this.#running) return this.#begin()
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined
        return this.flush()
      })
    return this.#next
  }

  /** Writes for whoever comes next that what is alive here was given back. Once: if it fails, it counts as started. */
  async handOver(member: GroupMember, feeds: readonly Feed[]): Promise<void> {
    const offsets = feeds
      .filter((feed) => feed.isLoaded && !feed.isLost)
      .map((feed) => ({ ...of(feed), ...feed.ledger.handover() }))
    if (offsets.length > 0) await this.#connection.commit(this.#group, member, offsets).catch(() => {})
  }

  #begin(): Promise<void> {
    this.#running = this.#write().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  async #write(): Promise<void> {
    for (;;) {
      const feeds = [...this.#changed].filter((feed) => !feed.isLost)
      this.#changed.clear()
      const { member } = this.#membership
      if (feeds.length === 0 || !member) return
      // Whoever may get the partitions by the join under way must not take what is alive here for a crash.
      const { isBetween } = this.#membership
      const progress = ({ ledger }: Feed): Progress => (isBetween ? ledger.handover() : ledger.progress())
      const offsets = feeds.map((feed): Committed => ({ ...of(feed), ...progress(feed) }))
      try {
        await this.#connection.commit(this.#group, member, offsets)
        return
      } catch (error) {
        for (const feed of feeds) this.#changed.add(feed)
        const verdict = groupVerdict(error)
        if (verdict === 'other') throw error
        // The answer may come after the group has settled again: then it is written under the new generation at once.
        if (verdict === 'expelled' && this.#membership.member === member) this.#membership.expel()
        if (verdict === 'rejoin' && (this.#membership.isJoining || this.#membership.member === member)) {
          await this.#membership.join()
        }
      }
    }
  }
}

function of({ topic, partition }: Feed): { topic: string; partition: number } {
  return { topic, partition }
}
