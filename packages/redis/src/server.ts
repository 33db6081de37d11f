/** What the server is and how it keeps data: asked once, and said honestly. */
import { IdemqError } from '@idemq/core'
import { type Connection, script } from './connection.ts'

export type RedisWarningCode = 'IDEMQ_REDIS_EVICTION' | 'IDEMQ_REDIS_NOT_PERSISTENT' | 'IDEMQ_REDIS_UNKNOWN_SETTINGS'

/** Something about the server that weakens what the adapter promises. */
export interface RedisWarning {
  readonly code: RedisWarningCode
  readonly message: string
}

export interface ServerSettings {
  readonly version: string
  /** Absent where the server does not tell (CONFIG and INFO are not allowed). */
  readonly evictionPolicy?: string
  readonly appendOnly?: boolean
  /** Absent where CONFIG is not allowed. */
  readonly appendFsync?: string
  readonly snapshots?: boolean
}

const oldest = [6, 2] as const

/**
 * Reads them. What the user may not ask stays absent.
 * @throws IdemqError UNSUPPORTED below Redis 6.2, BROKER_BUSY while the server loads its data
 */
export async function readSettings(connection: Connection, signal: AbortSignal): Promise<ServerSettings> {
  const info = parseInfo(await allowed(connection.call('ask the server what it is', signal, 'info', [])))
  const version = info.get('redis_version') ?? 'unknown'
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (info.has('redis_version') && (major < oldest[0] || (major === oldest[0] && minor < oldest[1]))) {
    throw new IdemqError('UNSUPPORTED', `redis: ${connection.server.where} is version ${version}; 6.2 is needed`)
  }
  // Until then it says that its append-only file is off.
  if (info.get('loading') === '1') {
    throw new IdemqError('BROKER_BUSY', `redis: ${connection.server.where} is loading its data`)
  }
  const setting = async (name: string): Promise<string | undefined> => {
    const pair = await allowed(connection.call(`read the setting ${name}`, signal, 'config', ['get', name]))
    return Array.isArray(pair) && pair.length > 1 ? String(pair[1]) : undefined
  }
  const [policy, fsync, save] = await Promise.all(['maxmemory-policy', 'appendfsync', 'save'].map(setting))
  const evictionPolicy = policy ?? info.get('maxmemory_policy')
  const aof = info.get('aof_enabled')
  return {
    version,
    ...(evictionPolicy !== undefined && { evictionPolicy }),
    ...(aof !== undefined && { appendOnly: aof === '1' }),
    ...(fsync !== undefined && { appendFsync: fsync }),
    ...(save !== undefined && { snapshots: save !== '' }),
  }
}

/** What weakens the promises of a broker or an inbox on this server. */
export function warningsOf(settings: ServerSettings, where: string): RedisWarning[] {
  const { evictionPolicy, appendOnly, snapshots } = settings
  const warnings: RedisWarning[] = []
  if (evictionPolicy !== undefined && evictionPolicy !== 'noeviction') {
    const message =
      `redis: ${where} has maxmemory-policy ${evictionPolicy}: when its memory is full it deletes jobs or the records ` +
      `that keep them from running twice. Set it to noeviction`
    warnings.push({ code: 'IDEMQ_REDIS_EVICTION', message })
  }
  if (appendOnly === false) {
    const message = snapshots
      ? `redis: ${where} keeps snapshots only: a crash of the server loses every job since the last one. Set appendonly yes`
      : `redis: ${where} keeps nothing on disk: a restart of the server loses every job. Set appendonly yes`
    warnings.push({ code: 'IDEMQ_REDIS_NOT_PERSISTENT', message })
  }
  if (evictionPolicy === undefined || appendOnly === undefined) {
    const message = `redis: ${where} does not tell its settings: make sure of maxmemory-policy noeviction and appendonly yes`
    warnings.push({ code: 'IDEMQ_REDIS_UNKNOWN_SETTINGS', message })
  }
  return warnings
}

/** @throws IdemqError QUEUE_MISMATCH unless a confirmed write of this server survives a power loss */
export function assertSynchronous(settings: ServerSettings, where: string): void {
  const { appendOnly, appendFsync } = settings
  if (appendOnly && appendFsync === 'always') return
  const aof = appendOnly === undefined ? 'not told' : appendOnly ? 'yes' : 'no'
  const found = `appendonly is ${aof}, appendfsync ${appendFsync ?? 'not told'}`
  const text = `redis: durability 'sync' needs appendonly yes and appendfsync always at ${where}; ${found}`
  throw new IdemqError('QUEUE_MISMATCH', text)
}

const probe = script('return 1', { whenFull: true })

/** Whether the server knows scripts that may write while it is out of memory: Redis 7 and Valkey do. */
export async function knowsScriptFlags(connection: Connection, signal: AbortSignal): Promise<boolean> {
  try {
    await connection.run('try a script with flags', signal, probe.whenFull ?? probe, [], [])
    return true
  } catch (error) {
    if (error instanceof IdemqError && !error.retryable && error.code !== 'ABORTED' && error.code !== 'CLOSED') {
      return false
    }
    throw error
  }
}

/** Not being allowed to ask, or a server that renamed the command, is no failure. */
async function allowed(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer
  } catch (error) {
    const { code, message } = error as IdemqError
    if (/NOPERM|unknown (sub)?command/i.test(message) || code === 'UNSUPPORTED') return undefined
    throw error
  }
}

function parseInfo(reply: unknown): Map<string, string> {
  const lines = reply === undefined ? [] : String(reply).split('\r\n')
  const pairs = lines.filter((line) => line.includes(':')).map((line) => line.split(/:(.*)/s) as [string, string])
  return new Map(pairs.map(([name, value]) => [name, value]))
}
