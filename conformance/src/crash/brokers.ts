/** The adapters that crash runs and process tests know, in one place. */
import { join } from 'node:path'
import { type Adapter, IdemqError, type OpenUrl, systemClock } from '@idemq/core'

export interface Broker {
  readonly name: string
  /** The module whose `openUrl` opens its URLs: a package that this one can see, or a file URL. */
  readonly adapterPackage: string
  /** The URL of a fresh, empty broker for one run, which may keep files in `directory`. */
  readonly freshUrl: (directory: string) => string
}

export const brokers: readonly Broker[] = [
  { name: 'memory', adapterPackage: '@idemq/memory', freshUrl: () => 'memory:crash' },
  { name: 'sqlite', adapterPackage: '@idemq/sqlite', freshUrl: (directory) => `sqlite:${join(directory, 'jobs.db')}` },
]

/**
 * A broker by name, or one at a URL whose scheme is its package's name. What is at a URL must be empty.
 * @throws IdemqError UNKNOWN_SCHEME naming those that are known
 */
export function findBroker(nameOrUrl: string): Broker {
  const known = brokers.find(({ name }) => name === nameOrUrl)
  if (known) return known
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(nameOrUrl)?.[1]
  if (!scheme) {
    const names = brokers.map(({ name }) => name).join(', ')
    throw new IdemqError('UNKNOWN_SCHEME', `no broker '${nameOrUrl}'; known: ${names}, or give a URL`)
  }
  return { name: scheme, adapterPackage: `@idemq/${scheme}`, freshUrl: () => nameOrUrl }
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
