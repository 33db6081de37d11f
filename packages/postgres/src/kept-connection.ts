/**
 * A connection that renewals have for themselves: handlers that hold every other one of the pool must not make the
 * claims of their jobs lapse.
 */
import type { PgClient } from './client.ts'
import { type Connections, type Database, ignore } from './database.ts'

/** A smaller pool cannot spare one. */
const minPoolSize = 3

export class KeptConnection implements Connections {
  readonly #database: Database
  #client: PgClient | undefined
  #opening = false
  #lent = false

  constructor(database: Database) {
    this.#database = database
    database.onClose(() => {
      if (this.#client) database.give(this.#client, false)
      this.#client = undefined
    })
  }

  /** Takes the connection from the pool ahead of need. */
  keep(): void {
    if (this.#client || this.#opening || this.#database.poolSize < minPoolSize) return
    this.#opening = true
    const { closing } = this.#database
    this.#database
      .take(closing)
      .then((client) => {
        if (closing.aborted) this.#database.give(client, false)
        else this.#client = client
      }, ignore)
      .finally(() => {
        this.#opening = false
      })
  }

  async take(signal: AbortSignal): Promise<PgClient> {
    if (!this.#client || this.#lent) return this.#database.take(signal)
    this.#lent = true
    return this.#client
  }

  give(client: PgClient, broken: boolean): void {
    if (client !== this.#client) {
      this.#database.give(client, broken)
      return
    }
    this.#lent = false
    if (!broken) return
    this.#client = undefined
    this.#database.give(client, true)
  }
}
