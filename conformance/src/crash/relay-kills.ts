/** Killing the relay at each of its places: what a run with `--relay-kills` aims at, and nothing else. */
import type { CrashPoint } from '@idemq/core'
import type { Aim } from './controls.ts'
import { type Edge, edges, type Role } from './plans.ts'

/** Where a relay can be between claiming rows and asking for the next, in that order. */
export const relayPlaces: readonly (CrashPoint | Edge)[] = [
  'send.before',
  'send.after',
  'relay.after_send',
  'outbox.before_mark',
  'outbox.after_mark',
]

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
}

/** Children of each role at once: no operator, for nothing is to be replayed. */
export const relayStaff: Readonly<Record<Role, number>> = { producer: 2, worker: 2, relay: 4, operator: 0 }
