/** What the broker and the inbox share: a connection, and what was found out about the server behind it. */
import { type Argument, Connection, type Script, type Server } from './connection.ts'
import { assertSynchronous, knowsScriptFlags, type RedisWarning, readSettings, warningsOf } from './server.ts'

export interface SessionOptions extends Server {
  readonly durability: 'async' | 'sync'
  readonly onWarning: (warning: RedisWarning) => void
  /** Never uses what only newer servers know. */
  readonly baseline: boolean
}

export class Session {
  readonly connection: Connection
  readonly options: SessionOptions
  readonly #owner: string
  #scriptFlags: Promise<boolean> | undefined
  #checked: Promise<void> | undefined

  constructor(options: SessionOptions, owner: string) {
    this.options = options
    this.#owner = owner
    this.connection = new Connection(options, owner)
  }

  /** A connection of its own, for what blocks. The caller closes it. */
  another(): Connection {
    return new Connection(this.options, this.#owner)
  }

  /**
   * Looks once whether the server keeps what it is told, and warns where it may not.
   * @throws IdemqError UNSUPPORTED, QUEUE_MISMATCH, or what the connection says
   */
  check(signal: AbortSignal): Promise<void> {
    this.#checked ??= this.#check(signal).catch((error: unknown) => {
      this.#checked = undefined
      throw error
    })
    return this.#checked
  }

  async #check(signal: AbortSignal): Promise<void> {
    const { where, durability, onWarning } = this.options
    const settings = await readSettings(this.connection, signal)
    if (durability === 'sync') assertSynchronous(settings, where)
    for (const warning of warningsOf(settings, where)) onWarning(warning)
  }

  /** Runs a script, in the variant that works on a full server where there is one and the server knows it. */
  async run(
    what: string,
    signal: AbortSignal,
    script: Script,
    keys: readonly string[],
    args: readonly Argument[],
  ): Promise<unknown> {
    const variant = script.whenFull && (await this.#knowsScriptFlags(signal)) ? script.whenFull : script
    return this.connection.run(what, signal, variant, keys, args)
  }

  #knowsScriptFlags(signal: AbortSignal): Promise<boolean> {
    if (this.options.baseline) return Promise.resolve(false)
    this.#scriptFlags ??= knowsScriptFlags(this.connection, signal).catch((error: unknown) => {
      this.#scriptFlags = undefined
      throw error
    })
    return this.#scriptFlags
  }
}
