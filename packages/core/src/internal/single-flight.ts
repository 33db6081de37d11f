import type { Entry } from './entry.ts'

interface Flight {
  /** Undefined once it has landed: old tables of the map must not keep it alive, see {@link InHand}. */
  leader: Entry | undefined
  followers: Entry[] | undefined
}

/**
 * Entries of equal key wait for the one that runs instead of asking the inbox again and again. The number that may
 * wait is bounded, so that duplicates of one long job cannot fill a worker's prefetch.
 */
export class SingleFlight {
  readonly #flights = new Map<string, Flight>()
  readonly #maxFollowers: number
  #waiting = 0

  constructor(maxFollowers: number) {
    this.#maxFollowers = maxFollowers
  }

  /** 'lead': nobody runs this key, go. 'follow': wait to be handed back by {@link land}. 'full': too many wait. */
  board(entry: Entry): 'lead' | 'follow' | 'full' {
    const flight = this.#flights.get(entry.flightKey)
    if (!flight) {
      this.#flights.set(entry.flightKey, { leader: entry, followers: undefined })
      return 'lead'
    }
    if (this.#waiting >= this.#maxFollowers) return 'full'
    this.#waiting++
    flight.followers ??= []
    flight.followers.push(entry)
    return 'follow'
  }

  /** If the entry led, its flight is over: returns who waited for it. */
  land(entry: Entry): readonly Entry[] {
    const flight = this.#flights.get(entry.flightKey)
    if (flight?.leader !== entry) return none
    this.#flights.delete(entry.flightKey)
    flight.leader = undefined
    this.#waiting -= flight.followers?.length ?? 0
    return flight.followers ?? none
  }
}

const none: readonly Entry[] = []
