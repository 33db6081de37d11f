/** The adapters that crash runs and process tests know, in one place. */
import { join } from 'node:path'
import { type Adapter, IdemqError, type OpenUrl, packageOfScheme, systemClock } from '@idemq/core'
import type { BedProxy, BedServer, ServerName } from '../bed/index.ts'

export interface Broker {
  readonly name: string
  /** The module whose `openUrl` opens its URLs: a package that this one can see, or a file URL. */
  readonly adapterPackage: string
  /** A run starts a server of its own, which it may kill and put a bad network before. */
  readonly hasServer: boolean
  /** Brings up a fresh, empty broker for one run. */
  readonly start: (options: StartOptions) => Promise<RunningBroker>
}

export interface StartOptions {
  /** Where an embedded broker may keep its files. */
  readonly directory: string
  /** Settings under which a server that is killed forgets what it has confirmed: for a negative control. @default false */
  readonly volatile?: boolean
}

export interface RunningBroker {
  readonly url: string
  /** Present where the broker `hasServer`. */
  readonly server?: BrokerServer
  close(): Promise<void>
}

export interface BrokerServer {
  /** SIGKILL. Resolves when it is dead. */
  kill(): Promise<void>
  /** Starts a killed server again. Resolves when it serves. */
  start(): Promise<void>
  /** Ends it in an orderly way and starts it again. Resolves when it serves. */
  restart(): Promise<void>
  /** A network before it that can be made bad, with the broker's URL through it. */
  proxy(): Promise<BedProxy>
}

export const brokers: readonly Broker[] = [
  embedded('memory', '@idemq/memory', () => 'memory:crash'),
  embedded('sqlite', '@idemq/sqlite', (directory) => `sqlite:${join(directory, 'jobs.db')}`),
  // The bed's Redis and Valkey write every change to disk before they answer; `sync` has the adapter insist on it.
  served('redis', '@idemq/redis', { query: '?durability=sync', volatileArgs: ['--appendonly', 'no'] }),
  served('valkey', '@idemq/redis', { query: '?durability=sync', volatileArgs: ['--appendonly', 'no'] }),
  served('postgres', '@idemq/postgres', {
    query: '',
    volatileArgs: ['-c', 'synchronous_commit=off', '-c', 'wal_writer_delay=10000'],
  }),
]

function embedded(name: string, adapterPackage: string, urlIn: (directory: string) => string): Broker {
  return {
    name,
    adapterPackage,
    hasServer: false,
    start: async ({ directory }) => ({ url: urlIn(directory), close: async () => {} }),
  }
}

interface Served {
  /** Ends the URL where the server is durable. */
  readonly query: string
  readonly volatileArgs: readonly string[]
}

function served(name: ServerName, adapterPackage: string, { query, volatileArgs }: Served): Broker {
  return {
    name,
    adapterPackage,
    hasServer: true,
    async start({ volatile = false }) {
      // What brings containers up is only loaded where there are any.
      const { bed } = await import('../bed/index.ts')
      const server: BedServer = await bed(name, volatile ? { args: volatileArgs } : {})
      const ending = volatile ? '' : query
      return {
        url: server.url + ending,
        server: {
          kill: server.kill,
          start: server.start,
          restart: server.restart,
          async proxy() {
            const proxy = await server.proxy()
            return { ...proxy, url: proxy.url + ending }
          },
        },
        close: server.stop,
      }
    },
  }
}

/**
 * A broker by name, or the one at a URL by the package of its scheme. What is at a URL must be empty.
 * @throws IdemqError UNKNOWN_SCHEME naming those that are known
 */
export function findBroker(nameOrUrl: string): Broker {
  const known = brokers.find(({ name }) => name === nameOrUrl)
  if (known) return known
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(nameOrUrl)?.[1]
  if (scheme === undefined) {
    const names = brokers.map(({ name }) => name).join(', ')
    throw new IdemqError('UNKNOWN_SCHEME', `no broker '${nameOrUrl}'; known: ${names}, or give a URL`)
  }
  const adapterPackage = Object.hasOwn(packageOfScheme, scheme) ? packageOfScheme[scheme] : undefined
  if (adapterPackage === undefined) {
    const schemes = Object.keys(packageOfScheme).join(', ')
    throw new IdemqError('UNKNOWN_SCHEME', `no adapter is known for '${scheme}:'; known: ${schemes}`)
  }
  const start = async (): Promise<RunningBroker> => ({ url: nameOrUrl, close: async () => {} })
  return { name: scheme, adapterPackage, hasServer: false, start }
}

export async function openBroker({ adapterPackage }: Broker, url: string): Promise<Adapter> {
  const { openUrl } = (await import(adapterPackage)) as { openUrl: OpenUrl }
  return openUrl(new URL(url), { clock: systemClock })
}

export async function closeAdapter({ driver, inbox, outbox }: Adapter): Promise<void> {
  await driver.close()
  await inbox?.close()
  await outbox?.close()
}

/**
 * Refuses a broker that a crash run cannot judge.
 * @throws IdemqError UNSUPPORTED
 */
export function assertCrashable({ driver, inbox }: Adapter): void {
  if (driver.capabilities.durability === 'memory') {
    throw new IdemqError('UNSUPPORTED', `${driver.name} lives in one process: there is nothing to outlive a kill`)
  }
  if (!inbox) {
    throw new IdemqError(
      'UNSUPPORTED',
      `${driver.name} has no inbox of its own, and a run without one promises nothing`,
    )
  }
}

/**
 * Refuses faults of a server or network where the run has no server of its own.
 * @param what what was asked for
 * @throws IdemqError UNSUPPORTED
 */
export function assertOwnServer({ name, hasServer }: Broker, what: string): void {
  if (hasServer) return
  const able = brokers.flatMap((broker) => (broker.hasServer ? [broker.name] : [])).join(', ')
  throw new IdemqError(
    'UNSUPPORTED',
    `${what}: '${name}' is embedded or somebody's, so there is no server to kill or to cut off; those that a run starts itself: ${able}`,
  )
}
