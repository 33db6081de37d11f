/**
 * Connections to one server or cluster: opened when first used, reconnected by ioredis, closed here. A call is sent
 * once: what was in flight when a connection broke is told to the caller, never sent again behind its back, and what
 * is not answered in time breaks the connection. (A cluster client does resend; copyIds and tokens absorb that.)
 */
import { createHash } from 'node:crypto'
import { IdemqError } from '@idemq/core'
import { Cluster, type Redis } from 'ioredis'
import { isReply, isScriptGone, isWrongDatabase, redisError } from './redis-error.ts'

export type Argument = string | number | Buffer

/** For calls that nobody gives up. */
export const never: AbortSignal = new AbortController().signal

/** A Lua script. Everything it touches is in the slot of its first key. */
export interface Script {
  readonly lua: string
  readonly sha: string
  /** The same, allowed to write where the server is out of memory: only for what makes room or ends work. */
  readonly whenFull?: Omit<Script, 'whenFull'>
}

export function script(lua: string, options: { readonly whenFull?: boolean } = {}): Script {
  const plain = { lua, sha: createHash('sha1').update(lua).digest('hex') }
  return options.whenFull ? { ...plain, whenFull: script(`#!lua flags=allow-oom\n${lua}`) } : plain
}

/** How to reach the server. */
export interface Server {
  /** For messages: never with credentials. */
  readonly where: string
  readonly answerTimeoutMs: number
  /** A client that is not connected yet. */
  readonly createClient: () => Redis | Cluster
}

/** Pauses between tries to connect: core repeats calls itself, so this only has to be there in time. */
function retryStrategy(tries: number): number {
  return Math.min(1_000, 10 * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2)
}

/** What every connection of this adapter needs of ioredis. */
export function clientOptions(answerTimeoutMs: number): {
  readonly lazyConnect: true
  readonly protocol: 2
  readonly enableReadyCheck: false
  readonly autoResendUnfulfilledCommands: false
  readonly maxRetriesPerRequest: 0
  readonly socketTimeout: number
  readonly connectTimeout: number
  readonly retryStrategy: (tries: number) => number
  readonly reconnectOnError: (error: Error) => boolean
} {
  return {
    lazyConnect: true,
    // The replies of streams have one shape in RESP2 only.
    protocol: 2,
    // A server that loads its data says so to the caller, who repeats; and INFO may not be allowed.
    enableReadyCheck: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    socketTimeout: answerTimeoutMs,
    connectTimeout: answerTimeoutMs,
    retryStrategy,
    // After a failover the address may lead to the new primary.
    reconnectOnError: (error) => error.message.includes('READONLY'),
  }
}

export class Connection {
  readonly server: Server
  readonly #owner: string
  readonly #unanswered = new WeakSet<IdemqError>()
  #client: Redis | Cluster | undefined
  #closed = false
  /** Counts connections that were ready. */
  #readies = 0
  /** Counts connections that ended: what belonged to one of them is gone. */
  #ends = 0
  #lastTrouble: unknown
  #refusal: unknown

  constructor(server: Server, owner: string) {
    this.server = server
    this.#owner = owner
  }

  get isCluster(): boolean {
    return this.#open() instanceof Cluster
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Changes whenever a connection was lost. */
  get generation(): number {
    return this.#ends
  }

  /**
   * Bulk replies are Buffers.
   * @throws IdemqError
   */
  async call(what: string, signal: AbortSignal, command: string, args: readonly Argument[]): Promise<unknown> {
    return this.#answer(what, signal, (client) => client.callBuffer(command, [...args]) as Promise<unknown>)
  }

  /** Runs a script, and loads it where the server does not have it (any more). @throws IdemqError */
  async run(
    what: string,
    signal: AbortSignal,
    { lua, sha }: Pick<Script, 'lua' | 'sha'>,
    keys: readonly string[],
    args: readonly Argument[],
  ): Promise<unknown> {
    const rest: Argument[] = [keys.length, ...keys, ...args]
    return this.#answer(what, signal, (client) =>
      (client.callBuffer('evalsha', [sha, ...rest]) as Promise<unknown>).catch((error: unknown) => {
        if (!isScriptGone(error)) throw error
        return client.callBuffer('eval', [lua, ...rest])
      }),
    )
  }

  /** Whether the call that threw this may have taken effect: it was sent, and no answer came. */
  mayHaveHappened(error: unknown): boolean {
    return error instanceof IdemqError && this.#unanswered.has(error)
  }

  async close(): Promise<void> {
    this.#closed = true
    const client = this.#client
    this.#client = undefined
    if (!client || client.status === 'end') return
    // What is under way is answered first: QUIT is the last command on the connection.
    if (client.status === 'ready') await client.quit().catch(() => {})
    client.disconnect()
  }

  #answer(what: string, signal: AbortSignal, send: (client: Redis | Cluster) => Promise<unknown>): Promise<unknown> {
    const client = this.#open()
    if (signal.aborted) throw aborted(signal, what)
    const readies = this.#readies
    const wasReady = client.status === 'ready'
    const toError = (thrown: unknown): IdemqError => {
      const error = this.#errorOf(thrown, what)
      if (!isReply(thrown) && (wasReady || this.#readies !== readies)) this.#unanswered.add(error)
      return error
    }
    // Listening costs as much as the rest of a call.
    if (signal === never) {
      return send(client).catch((thrown: unknown) => {
        throw toError(thrown)
      })
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(toError(aborted(signal, what)))
      signal.addEventListener('abort', onAbort)
      send(client).then(
        (answer) => {
          signal.removeEventListener('abort', onAbort)
          resolve(answer)
        },
        (thrown: unknown) => {
          signal.removeEventListener('abort', onAbort)
          reject(toError(thrown))
        },
      )
    })
  }

  #errorOf(thrown: unknown, what: string): IdemqError {
    if (this.#closed && !isReply(thrown)) return new IdemqError('CLOSED', `the ${this.#owner} was closed`, thrown)
    const { where } = this.server
    if (this.#refusal) return redisError(this.#refusal, what, where)
    return redisError(thrown, what, where, isReply(thrown) ? undefined : this.#lastTrouble)
  }

  #open(): Redis | Cluster {
    if (this.#closed) throw new IdemqError('CLOSED', `the ${this.#owner} is closed`)
    if (this.#client) return this.#client
    const client = this.server.createClient()
    this.#client = client
    client.on('ready', () => {
      this.#readies++
      this.#lastTrouble = undefined
    })
    client.on('close', () => {
      this.#ends++
    })
    client.on('error', (error: Error) => {
      this.#lastTrouble = error
      // ioredis would go on in database 0.
      if (!isWrongDatabase(error)) return
      this.#refusal = error
      client.disconnect()
    })
    if (client instanceof Cluster) client.on('node error', (error: Error) => (this.#lastTrouble = error))
    return client
  }
}

function aborted({ reason }: AbortSignal, what: string): IdemqError {
  if (reason instanceof IdemqError) return reason
  return new IdemqError('ABORTED', `redis: ${what}: the caller gave up`, reason)
}
