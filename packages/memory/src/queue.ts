/**
 * One group's view of one queue: where each message is, and the moves between those places. Nothing here waits or does
 * I/O. Every move is O(1), or O(log n) in the number of delayed messages, however many are queued.
 *
 * send → delayed (a heap by due time) → ready (a list) → held by a receiver (a list by lease end) → acked, gone
 *                                        ↑ behind its ordering key (a list per key)      │ release, lease end
 *                                        └──────────────────────────────────────────────┘
 */
import { type Clock, type Delivery, Doorbell, type Outcome, type Outgoing, type QueueStats } from '@idemq/core'
import { DueHeap } from './due-heap.ts'
import { MessageList } from './message-list.ts'

export interface Message {
  readonly copyId: string
  readonly body: Uint8Array
  /** Undefined unless the sender asked for order. */
  readonly orderingKey: string | undefined
  /** When it may be delivered first; since when it can be, once it was behind its key. Monotonic milliseconds. */
  dueMs: number
  deliveries: number
  /** The delivery that holds it now. Being this very object is the fence: an earlier delivery never equals it. */
  heldBy: HeldDelivery | undefined
  /** Links of the one {@link MessageList} it is in. */
  previous: Message | undefined
  next: Message | undefined
}

/** What a receiver holds. Its leases are all equally long, so the order of delivery and extension is that of expiry. */
export interface Holder {
  readonly leaseMs: number
  readonly held: MessageList
}

export interface HeldDelivery extends Delivery {
  readonly message: Message
  readonly holder: Holder
  readonly sinceMs: number
  holdUntilMs: number
}

export class GroupQueue {
  /** Rung whenever a waiting receiver might find something, or might have to wake at an earlier instant. */
  readonly bell: Doorbell
  /** Oldest first, by copy id. */
  readonly dead: Map<string, Uint8Array> = new Map()
  readonly #clock: Clock
  /** Every message stored, by copy id: a second send of a copy changes nothing. */
  readonly #copies = new Map<string, Message>()
  readonly #delayed = new DueHeap()
  readonly #ready = new MessageList()
  /** For each ordering key with one message ready or held: those that wait behind it. */
  readonly #behind = new Map<string, MessageList>()
  readonly #holders = new Set<Holder>()

  constructor(clock: Clock) {
    this.#clock = clock
    this.bell = new Doorbell(clock)
  }

  put({ copyId, body, ordered, partitionKey, delayMs }: Outgoing): void {
    if (this.#copies.has(copyId)) return
    const message: Message = {
      copyId,
      body,
      orderingKey: ordered ? partitionKey : undefined,
      dueMs: this.#clock.monotonicMs() + Math.max(0, delayMs),
      deliveries: 0,
      heldBy: undefined,
      previous: undefined,
      next: undefined,
    }
    this.#copies.set(copyId, message)
    if (delayMs > 0) this.#delayed.push(message)
    else this.#enterReady(message)
  }

  addHolder(leaseMs: number): Holder {
    const holder = { leaseMs, held: new MessageList() }
    this.#holders.add(holder)
    return holder
  }

  /** Gives back all it holds. */
  removeHolder(holder: Holder): void {
    if (!this.#holders.delete(holder)) return
    for (let last = holder.held.last; last; last = holder.held.last) this.#giveBack(last)
    this.bell.ring()
  }

  /** Promotes what is due and reclaims what expired. */
  catchUp(): void {
    const nowMs = this.#clock.monotonicMs()
    for (let due = this.#delayed.first; due && due.dueMs <= nowMs; due = this.#delayed.first) {
      this.#delayed.pop()
      this.#enterReady(due)
    }
    for (const { held } of this.#holders) {
      for (let first = held.first; first && first.heldBy!.holdUntilMs <= nowMs; first = held.first) {
        this.#giveBack(first)
      }
    }
  }

  /** The instant at which {@link catchUp} next has something to do. */
  nextChangeMs(): number {
    let nextMs = this.#delayed.first?.dueMs ?? Number.POSITIVE_INFINITY
    for (const { held } of this.#holders) {
      if (held.first) nextMs = Math.min(nextMs, held.first.heldBy!.holdUntilMs)
    }
    return nextMs
  }

  take(holder: Holder, max: number): Delivery[] {
    const taken: HeldDelivery[] = []
    const nowMs = this.#clock.monotonicMs()
    while (taken.length < max) {
      const message = this.#ready.shift()
      if (!message) break
      message.heldBy = {
        body: message.body,
        priorDeliveries: message.deliveries++,
        holdUntilMs: nowMs + holder.leaseMs,
        message,
        holder,
        sinceMs: nowMs,
      }
      holder.held.push(message)
      taken.push(message.heldBy)
    }
    // Others that wait must now wake no later than these leases end.
    if (taken.length > 0) this.bell.ring()
    return taken
  }

  /** False: it is lost, by lease end, an earlier settle or the end of its receiver. */
  settle(delivery: Delivery, outcome: Outcome): boolean {
    const { message, holder } = delivery as HeldDelivery
    if (message?.heldBy !== delivery) return false
    if (outcome === 'release') {
      message.deliveries--
      this.#giveBack(message)
      return true
    }
    holder.held.remove(message)
    message.heldBy = undefined
    this.#copies.delete(message.copyId)
    if (message.orderingKey !== undefined) this.#nextOf(message.orderingKey)
    return true
  }

  extend(delivery: Delivery): boolean {
    const held = delivery as HeldDelivery
    if (held.message?.heldBy !== held) return false
    held.holdUntilMs = this.#clock.monotonicMs() + held.holder.leaseMs
    held.holder.held.remove(held.message)
    held.holder.held.push(held.message)
    return true
  }

  stats(): QueueStats {
    this.catchUp()
    const nowMs = this.#clock.monotonicMs()
    let ready = this.#ready.length
    let oldestReadyMs = this.#ready.first?.dueMs ?? nowMs
    for (const behind of this.#behind.values()) {
      ready += behind.length
      oldestReadyMs = Math.min(oldestReadyMs, behind.first?.dueMs ?? nowMs)
    }
    let inFlight = 0
    let oldestInFlightMs = nowMs
    for (const { held } of this.#holders) {
      inFlight += held.length
      for (const message of held) oldestInFlightMs = Math.min(oldestInFlightMs, message.heldBy!.sinceMs)
    }
    const nextDue = this.#delayed.first
    return {
      ready,
      delayed: this.#delayed.length,
      inFlight,
      dead: this.dead.size,
      ...(ready > 0 && { oldestReadyAgeMs: nowMs - oldestReadyMs }),
      ...(inFlight > 0 && { oldestInFlightAgeMs: nowMs - oldestInFlightMs }),
      ...(nextDue && { nextDueInMs: Math.max(0, nextDue.dueMs - nowMs) }),
    }
  }

  /** A message that is due: ready, or behind the one of its ordering key that is ready or held. */
  #enterReady(message: Message): void {
    const key = message.orderingKey
    if (key !== undefined) {
      const behind = this.#behind.get(key)
      if (behind) {
        behind.push(message)
        return
      }
      this.#behind.set(key, new MessageList())
    }
    this.#ready.push(message)
  }

  #nextOf(orderingKey: string): void {
    const next = this.#behind.get(orderingKey)?.shift()
    if (!next) {
      this.#behind.delete(orderingKey)
      return
    }
    next.dueMs = this.#clock.monotonicMs()
    this.#ready.push(next)
  }

  /** Back to the front: it has waited longest, and stays ahead of those behind its key. */
  #giveBack(message: Message): void {
    message.heldBy!.holder.held.remove(message)
    message.heldBy = undefined
    this.#ready.unshift(message)
  }
}
