/** How a memory is opened: by call or by URL. */
import { type Adapter, type Clock, IdemqError, type OpenUrl, reserveBytes, systemClock } from '@idemq/core'
import { type MemoryBroker, memoryBroker, memoryDriver } from './driver.ts'
import { type InboxTable, inboxOver, inboxTable } from './inbox.ts'

export interface MemoryInboxOptions {
  /** Leases and retention run on its monotonic time. @default systemClock */
  readonly clock?: Clock
}

export interface MemoryOptions extends MemoryInboxOptions {
  /** Largest body in bytes, from 32 KiB to 1 GiB. @default 16 MiB */
  readonly maxBodyBytes?: number
}

const defaults: Required<MemoryOptions> = { clock: systemClock, maxBodyBytes: 16 * 1024 * 1024 }
const minBodyBytes = 2 * reserveBytes
const maxBodyBytes = 1024 ** 3

/**
 * A broker and an inbox that live and die with this process. They share nothing but the clock.
 * @throws IdemqError INVALID_OPTION
 */
export function memory(options: MemoryOptions = {}): Adapter {
  const resolved = { ...defaults, ...options }
  const bytes = resolved.maxBodyBytes
  if (!(Number.isInteger(bytes) && bytes >= minBodyBytes && bytes <= maxBodyBytes)) {
    throw new IdemqError(
      'INVALID_OPTION',
      `memory: maxBodyBytes is ${bytes}, must be an integer from ${minBodyBytes} to ${maxBodyBytes}`,
    )
  }
  return adapter(memoryBroker(resolved.clock), inboxTable(resolved.clock), bytes)
}

function adapter(broker: MemoryBroker, table: InboxTable, bytes: number): Adapter {
  return { driver: memoryDriver(broker, bytes), inbox: inboxOver(table) }
}

/** What each named memory holds, for as long as the process lives: a producer may close before its worker opens. */
const named = new Map<string, { readonly broker: MemoryBroker; readonly table: InboxTable }>()

/**
 * `memory:` opens a fresh memory. `memory:name` opens the one of that name in this process, with the clock of whoever
 * opened it first; closing it leaves what it holds.
 * @throws IdemqError INVALID_URL, INVALID_OPTION (it takes no query options)
 */
export const openUrl: OpenUrl = async (url, { clock }) => {
  if (url.host !== '' || url.hash !== '' || url.pathname.startsWith('/')) {
    throw new IdemqError('INVALID_URL', `write memory: or memory:<name>, without host, path or fragment`)
  }
  for (const option of url.searchParams.keys()) {
    throw new IdemqError('INVALID_OPTION', `memory: takes no option '${option}'`)
  }
  if (url.pathname === '') return memory({ clock })
  const shared = named.get(url.pathname) ?? { broker: memoryBroker(clock), table: inboxTable(clock) }
  named.set(url.pathname, shared)
  return adapter(shared.broker, shared.table, defaults.maxBodyBytes)
}
