import type { Clock } from '@idemq/core'
import { type Assignment, assign, type Claim, type Member } from './assigner.ts'
import type { Connection, GroupMember, GroupTimeouts, Joined, MemberShare } from './client.ts'
import { protocolError } from './kafka-error.ts'

export interface MembershipOptions extends GroupTimeouts {
  readonly connection: Connection
  readonly group: string
  readonly topics: readonly string[]
  readonly heartbeatMs: number
  readonly clock: Clock
  /** What is in hand, by unit. */
  readonly claims: () => readonly Claim[]
  /** Whether it only ends what it has in hand. */
  readonly isLeaving: () => boolean
  /** Runs before every join, while the old generation still holds. */
  readonly beforeJoin: (member: GroupMember) => Promise<void>
  /** Synchronous: what is not in `kept` is no longer this member's, or not as it was. */
  readonly onAssigned: (assignment: Assignment) => void
  /** The group went on without this member. */
  readonly onExpelled: () => void
}

/** What a group's answer means for the member. */
export function groupVerdict(thrown: unknown): 'rejoin' | 'expelled' | 'other' {
  const type = protocolError(thrown)
  if (type === 'REBALANCE_IN_PROGRESS' || type === 'ILLEGAL_GENERATION') return 'rejoin'
  return type === 'UNKNOWN_MEMBER_ID' || type === 'FENCED_INSTANCE_ID' ? 'expelled' : 'other'
}

/**
 * Membership in a consumer group. It heartbeats by itself, whatever else goes on; follows every rebalance at once; and
 * once expelled joins again only when asked to, so that who does not receive holds nothing.
 */
export class Membership {
  readonly #options: MembershipOptions
  #member: GroupMember | undefined
  /** Under which it may join again as the same member. */
  #id = ''
  #joining: Promise<void> | undefined
  #isBetween = false
  #seenAtMs = 0
  #leaderOf: ReadonlyMap<string, number> | undefined
  #cancelBeat: (() => void) | undefined
  #left = false

  constructor(options: MembershipOptions) {
    this.#options = options
  }

  get member(): GroupMember | undefined {
    return this.#member
  }

  get isJoining(): boolean {
    return this.#joining !== undefined
  }

  /** From the last words of one generation until the next has told who has what. */
  get isBetween(): boolean {
    return this.#isBetween
  }

  /** Until when the group has surely not given up on this member. While it joins, the group waits for it. */
  get heldUntilMs(): number {
    const { clock, sessionTimeoutMs } = this.#options
    if (!this.#member) return 0
    return (this.#joining ? clock.monotonicMs() : this.#seenAtMs) + sessionTimeoutMs
  }

  /** Joins, or joins again. Calls meanwhile wait for the same. */
  join(): Promise<void> {
    this.#joining ??= this.#join().finally(() => {
      this.#joining = undefined
    })
    return this.#joining
  }

  /** Leaves at once: the others need not wait for the session to end. */
  async leave(): Promise<void> {
    this.#left = true
    this.#cancelBeat?.()
    await this.#joining?.catch(() => {})
    const id = this.#id
    this.#member = undefined
    this.#id = ''
    if (id !== '') await this.#options.connection.leave(this.#options.group, id)
  }

  /** The group said that it does not know this member (any more). */
  expel(): void {
    this.#cancelBeat?.()
    this.#id = ''
    if (!this.#member) return
    this.#member = undefined
    this.#options.onExpelled()
  }

  async #join(): Promise<void> {
    const { connection, group, topics, clock, onAssigned, beforeJoin } = this.#options
    this.#cancelBeat?.()
    try {
      await connection.watch(topics)
      this.#isBetween = true
      if (this.#member) await beforeJoin(this.#member)
      while (!this.#left) {
        const joined = await this.#enter()
        this.#id = joined.id
        const askedAtMs = clock.monotonicMs()
        let share: MemberShare
        try {
          share = await connection.sync(group, joined, await this.#shares(joined))
        } catch (error) {
          if (groupVerdict(error) === 'rejoin') continue
          throw error
        }
        const { id, generation } = joined
        this.#member = { id, generation }
        this.#seenAtMs = askedAtMs
        this.#isBetween = false
        onAssigned({ partitions: share.partitions, kept: keptOf(share) })
        return
      }
    } catch (error) {
      if (groupVerdict(error) === 'expelled') this.expel()
      throw error
    } finally {
      this.#isBetween = false
      if (this.#member && !this.#left) this.#scheduleBeat()
    }
  }

  async #enter(): Promise<Joined> {
    const { connection, group, topics, claims, isLeaving } = this.#options
    const says = { generation: this.#member?.generation ?? 0, claims: claims(), isLeaving: isLeaving() }
    const userData = Buffer.from(JSON.stringify(says))
    try {
      return await connection.join(group, this.#id, topics, userData, this.#options)
    } catch (error) {
      if (groupVerdict(error) !== 'expelled' || this.#id === '') throw error
      this.expel()
      return this.#enter()
    }
  }

  /** What everybody gets, if this member leads. */
  async #shares({ members }: Joined): Promise<Map<string, MemberShare>> {
    this.#leaderOf = undefined
    if (!members) return new Map()
    const { connection } = this.#options
    const decoded = members.map(({ id, topics, userData }): Member => ({ id, topics, ...saidBy(userData) }))
    const topics = new Set(decoded.flatMap((member) => member.topics))
    await connection.watch([...topics])
    this.#leaderOf = new Map([...topics].map((topic) => [topic, connection.partitionCount(topic)]))
    const shares = assign(decoded, this.#leaderOf)
    return new Map(
      Array.from(shares, ([id, { partitions, kept }]) => [
        id,
        { partitions, userData: Buffer.from(JSON.stringify({ kept })) },
      ]),
    )
  }

  #scheduleBeat(): void {
    const { clock, heartbeatMs } = this.#options
    this.#cancelBeat?.()
    this.#cancelBeat = clock.schedule(() => void this.#beat(), heartbeatMs, true)
  }

  async #beat(): Promise<void> {
    const { connection, group, clock } = this.#options
    const member = this.#member
    if (!member || this.#joining) return
    const askedAtMs = clock.monotonicMs()
    try {
      await connection.heartbeat(group, member)
      this.#seenAtMs = Math.max(this.#seenAtMs, askedAtMs)
      if (this.#hasGrown()) await this.join()
    } catch (error) {
      const verdict = groupVerdict(error)
      if (verdict === 'expelled' && this.#member === member) this.expel()
      // What a join meets, the next beat meets again.
      if (verdict === 'rejoin' && this.#member) await this.join().catch(() => {})
    }
    if (this.#member && !this.#joining && !this.#left) this.#scheduleBeat()
  }

  /** Whether topics have more partitions than when they were shared out: the leader sees to it. */
  #hasGrown(): boolean {
    const { connection } = this.#options
    return [...(this.#leaderOf ?? [])].some(([topic, count]) => connection.partitionCount(topic) !== count)
  }
}

type Says = Pick<Member, 'generation' | 'claims' | 'isLeaving'>

function saidBy(userData: Buffer): Says {
  try {
    return JSON.parse(userData.toString()) as Says
  } catch {
    return { generation: 0, claims: [], isLeaving: false }
  }
}

function keptOf({ userData }: MemberShare): readonly number[] {
  try {
    return (JSON.parse(userData.toString()) as Pick<Assignment, 'kept'>).kept
  } catch {
    return []
  }
}
