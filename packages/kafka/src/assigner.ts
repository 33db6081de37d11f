/**
 * Who consumes what. The unit is a partition number: partition 3 of the queue and of all its retry topics go to one
 * member, so that equal keys meet in one process however often they are retried. Members keep what they have; what must
 * move is what they have least in hand of.
 */

/** A unit that a member says it has. */
export interface Claim {
  readonly unit: number
  /** Deliveries in hand. */
  readonly busy: number
}

export interface Member {
  readonly id: string
  readonly topics: readonly string[]
  /** The generation in which it got what it claims. */
  readonly generation: number
  readonly claims: readonly Claim[]
  /** Ends what it has in hand and takes nothing new. */
  readonly isLeaving: boolean
}

export interface Assignment {
  /** Partitions by topic. */
  readonly partitions: Readonly<Record<string, readonly number[]>>
  /** Units that it claimed and nobody had since: its work in hand is still its own. */
  readonly kept: readonly number[]
}

export function assign(
  members: readonly Member[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Assignment> {
  const count = Math.max(0, ...partitionCounts.values())
  const valid = validClaims(members, count)
  const free = new Set(Array.from({ length: count }, (_, unit) => unit))
  const units = new Map<string, number[]>(members.map(({ id }) => [id, []]))
  const kept = new Map<string, readonly number[]>()
  const keep = (id: string, claims: readonly Claim[]): void => {
    const own = claims.map(({ unit }) => unit)
    for (const unit of own) free.delete(unit)
    units.set(id, [...own])
    kept.set(id, own)
  }
  for (const { id, isLeaving } of members)
    if (isLeaving)
      keep(
        id,
        valid.get(id)!.filter(({ busy }) => busy > 0),
      )
  // Those that have most keep the odd ones.
  const staying = members
    .filter(({ isLeaving }) => !isLeaving)
    .sort((a, b) => valid.get(b.id)!.length - valid.get(a.id)!.length || (a.id < b.id ? -1 : 1))
  const shared = free.size
  const quota = (rank: number): number => Math.floor(shared / staying.length) + (rank < shared % staying.length ? 1 : 0)
  staying.forEach(({ id }, rank) => {
    const busiest = [...valid.get(id)!].sort((a, b) => b.busy - a.busy || a.unit - b.unit)
    keep(id, busiest.slice(0, quota(rank)))
  })
  staying.forEach(({ id }, rank) => {
    const own = units.get(id)!
    for (const unit of free) {
      if (own.length >= quota(rank)) break
      free.delete(unit)
      own.push(unit)
    }
  })
  return spread(members, partitionCounts, units, kept)
}

/** Of several that claim one unit, the one that got it last has it. */
function validClaims(members: readonly Member[], count: number): Map<string, Claim[]> {
  const holder = new Map<number, Member>()
  for (const member of members) {
    for (const { unit } of member.claims) {
      const other = holder.get(unit)
      if (!other || other.generation < member.generation) holder.set(unit, member)
    }
  }
  const valid = ({ unit }: Claim, member: Member): boolean => unit < count && holder.get(unit) === member
  return new Map(members.map((member) => [member.id, member.claims.filter((claim) => valid(claim, member))]))
}

/** Partitions of each topic to whoever has their unit, or, if that one does not know the topic, to one that does. */
function spread(
  members: readonly Member[],
  partitionCounts: ReadonlyMap<string, number>,
  units: ReadonlyMap<string, readonly number[]>,
  kept: ReadonlyMap<string, readonly number[]>,
): Map<string, Assignment> {
  const owner = new Map<number, Member>()
  for (const member of members) for (const unit of units.get(member.id)!) owner.set(unit, member)
  const partitions = new Map(members.map(({ id }) => [id, {} as Record<string, number[]>]))
  for (const [topic, count] of partitionCounts) {
    const knowing = members.filter(({ topics, isLeaving }) => topics.includes(topic) && !isLeaving)
    for (let unit = 0; unit < count; unit++) {
      const first = owner.get(unit)
      const member = first?.topics.includes(topic) ? first : knowing[unit % knowing.length]
      if (!member) continue
      const own = partitions.get(member.id)!
      own[topic] = [...(own[topic] ?? []), unit]
    }
  }
  return new Map(members.map(({ id }) => [id, { partitions: partitions.get(id)!, kept: kept.get(id)! }]))
}
