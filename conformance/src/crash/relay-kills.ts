/** Killing the relay at each of its places: what a run with `--relay-kills` aims at, and nothing else. */
import type { CrashPoint } from '@idemq/core'
import type { Aim } from './controls.ts'
import { type Edge, edges, type Role } from './plans.ts'

/** What must follow the death of a relay at each place where it can be, in the order in which it gets there. */
const follows = {
  'send.before': 'its rows are claimed again when its lease ends, and sent',
  'send.after': 'its rows are sent again with the same copyIds; each job runs once',
  'relay.after_send': 'its rows are sent again with the same copyIds; each job runs once',
  'outbox.before_mark': 'its rows are sent again with the same copyIds; each job runs once',
  'outbox.after_mark': 'nothing: its rows are sent and marked',
} as const satisfies Partial<Record<CrashPoint | Edge, string>>

/** Where a relay can be between claiming rows and asking for the next. */
export const relayPlaces: readonly (CrashPoint | Edge)[] = Object.keys(follows) as (keyof typeof follows)[]

/** What must follow when a relay dies at `place`, if it can. */
export function followsRelay(place: string): string | undefined {
  return Object.hasOwn(follows, place) ? follows[place as keyof typeof follows] : undefined
}

const hits = [1, 2] as const

function shapeOf(place: CrashPoint | Edge): { kind: 'point'; point: CrashPoint } | { kind: 'edge'; edge: Edge } {
  return isEdge(place) ? { kind: 'edge', edge: place } : { kind: 'point', point: place }
}

function isEdge(place: CrashPoint | Edge): place is Edge {
  return (edges as readonly string[]).includes(place)
}

export const relayAim: Aim = {
  aim: relayPlaces.map((place) => ({ role: 'relay', hits, ...shapeOf(place) })),
  mix: { booked: 3, reserve: 1 },
  // Rows that a dead relay hides until its lease ends must not leave the others without any.
  maxUnderWay: 400,
  needsOutbox: true,
}

/** Children of each role at once: no operator, for nothing is to be replayed. */
export const relayStaff: Readonly<Record<Role, number>> = { producer: 2, worker: 2, relay: 4, operator: 0 }
