/** How a server is reached: by call or by URL. */
import { isIP } from 'node:net'
import {
  type Adapter,
  type Clock,
  IdemqError,
  type InboxStore,
  type OpenUrl,
  reserveBytes,
  systemClock,
} from '@idemq/core'
import { Cluster, Redis } from 'ioredis'
import { clientOptions, type Server } from './connection.ts'
import { redisDriver } from './driver.ts'
import { redisInboxOn } from './inbox.ts'
import type { RedisWarning } from './server.ts'
import { Session } from './session.ts'

export interface RedisStoreOptions {
  /** `redis://user:password@host:6379/0`; `rediss:` for TLS; `valkey:` and `valkeys:` are the same. */
  readonly url?: string | URL
  /**
   * Instead of `url`: an ioredis client (cluster, sentinel, TLS options) to make connections like. It is never used
   * itself, nor closed.
   */
  readonly client?: Redis | Cluster
  /** With `url`: it is one node of a cluster. @default false */
  readonly cluster?: boolean
  /** Begins the names of all keys; no braces. @default 'idemq' */
  readonly prefix?: string
  /**
   * `sync` insists on a server that writes every change to disk before it answers (appendonly yes, appendfsync always):
   * what was confirmed survives a power loss. `async` takes any. @default 'async'
   */
  readonly durability?: 'async' | 'sync'
  /**
   * Milliseconds without an answer after which a connection is given up, from 100 to 600,000. @default 10_000
   */
  readonly answerTimeoutMs?: number
  /** Told once what weakens the promises on this server. @default process.emitWarning */
  readonly onWarning?: (warning: RedisWarning) => void
  /** Use only what Redis 6.2 knows, whatever the server is. @default false */
  readonly baseline?: boolean
}

export interface RedisOptions extends RedisStoreOptions {
  /** Milliseconds between looks for copies that fell due and for what was given back, from 1 to 60,000. @default 50 */
  readonly pollMs?: number
  /** Largest body in bytes, from 32 KiB to 512 MiB. @default 16 MiB */
  readonly maxBodyBytes?: number
  /** Its monotonic time is for waits; all that is stored goes by the server's clock. @default systemClock */
  readonly clock?: Clock
}

type Resolved = Required<Omit<RedisOptions, 'url' | 'client'>> & Pick<RedisOptions, 'url' | 'client'>

const defaults: Omit<Resolved, 'url' | 'client'> = {
  cluster: false,
  prefix: 'idemq',
  durability: 'async',
  answerTimeoutMs: 10_000,
  onWarning: ({ code, message }) => process.emitWarning(message, { type: 'IdemqWarning', code }),
  baseline: false,
  pollMs: 50,
  maxBodyBytes: 16 * 1024 * 1024,
  clock: systemClock,
}

/** Lowest and highest value of each number. */
const ranges = {
  answerTimeoutMs: [100, 600_000],
  pollMs: [1, 60_000],
  maxBodyBytes: [2 * reserveBytes, 512 * 1024 * 1024],
} as const

const flags = ['cluster', 'baseline'] as const
const texts = ['prefix', 'durability'] as const
const schemes: Readonly<Record<string, 'plain' | 'tls'>> = {
  'redis:': 'plain',
  'rediss:': 'tls',
  'valkey:': 'plain',
  'valkeys:': 'tls',
}

export interface RedisAdapter extends Adapter {
  readonly inbox: InboxStore
}

/**
 * A broker and an inbox on one server or cluster. Opens nothing yet: the first call does.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function redis(target: string | RedisOptions): RedisAdapter {
  const options = resolveOptions(target)
  const server = serverOf(options)
  return {
    driver: redisDriver(new Session({ ...server, ...options }, 'redis driver'), options),
    inbox: redisInboxOn(new Session({ ...server, ...options }, 'redis inbox'), options.prefix),
  }
}

/**
 * An inbox alone, for a broker that has none.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function redisInbox(target: string | RedisStoreOptions): InboxStore {
  const options = resolveOptions(target)
  return redisInboxOn(new Session({ ...serverOf(options), ...options }, 'redis inbox'), options.prefix)
}

/**
 * `redis://user:password@host:6379/0`, with any of `?prefix=…&durability=sync&cluster=true&pollMs=…&maxBodyBytes=…&
 * answerTimeoutMs=…&baseline=true`. For TLS `rediss:`. `valkey:` and `valkeys:` are the same.
 * @throws IdemqError INVALID_URL naming the part, INVALID_OPTION
 */
export const openUrl: OpenUrl = async (url, { clock }) => {
  const options: Record<string, unknown> = {}
  for (const [name, value] of url.searchParams) {
    if (name in ranges) options[name] = value.trim() === '' ? Number.NaN : Number(value)
    else if ((flags as readonly string[]).includes(name)) options[name] = asFlag(name, value)
    else if ((texts as readonly string[]).includes(name)) options[name] = value
    else {
      const known = [...Object.keys(ranges), ...flags, ...texts].join(', ')
      throw new IdemqError('INVALID_OPTION', `${hostOf(url)}: unknown option '${name}', known: ${known}`)
    }
  }
  return redis({ ...options, url, clock })
}

function asFlag(name: string, value: string): boolean {
  if (value === 'true' || value === 'false') return value === 'true'
  throw new IdemqError('INVALID_OPTION', `redis: ${name} is '${value}', must be true or false`)
}

function resolveOptions(target: string | RedisOptions): Resolved {
  const given = typeof target === 'string' ? { url: target } : target
  const options: Resolved = { ...defaults, ...given }
  const refuse = (what: string): never => {
    throw new IdemqError('INVALID_OPTION', `redis: ${what}`)
  }
  if ((options.url === undefined) === (options.client === undefined)) refuse('give either url or client')
  if (!/^[^{}\s]{1,100}$/.test(options.prefix)) {
    refuse(`prefix is '${options.prefix}', must be 1 to 100 characters without braces or spaces`)
  }
  if (options.durability !== 'async' && options.durability !== 'sync') {
    refuse(`durability is '${options.durability}', must be 'async' or 'sync'`)
  }
  for (const name of Object.keys(ranges) as (keyof typeof ranges)[]) {
    const [min, max] = ranges[name]
    const value = options[name]
    if (!(Number.isInteger(value) && value >= min && value <= max)) {
      refuse(`${name} is ${value}, must be an integer from ${min} to ${max}`)
    }
  }
  return options
}

function serverOf({ url, client, cluster, answerTimeoutMs }: Resolved): Server {
  const ours = clientOptions(answerTimeoutMs)
  if (client) {
    // Its own limits on a command would give up a read that the server goes on with, and strand what that takes.
    const unlimited = { commandTimeout: undefined, blockingTimeout: undefined } as object
    const overrides = { ...ours, ...unlimited }
    return {
      where: 'the given client',
      answerTimeoutMs,
      createClient: () =>
        client instanceof Cluster
          ? client.duplicate([], { lazyConnect: true, redisOptions: overrides })
          : client.duplicate(overrides),
    }
  }
  const { host, port, db, ...credentials } = parseUrl(url as string | URL)
  const where = `${host}:${port}/${db}`
  if (!cluster) {
    return { where, answerTimeoutMs, createClient: () => new Redis({ ...ours, ...credentials, host, port, db }) }
  }
  if (db !== 0) throw new IdemqError('INVALID_URL', `redis: ${where}: a cluster has database 0 only`)
  return {
    where,
    answerTimeoutMs,
    createClient: () => new Cluster([{ host, port }], { lazyConnect: true, redisOptions: { ...ours, ...credentials } }),
  }
}

interface Parsed {
  readonly host: string
  readonly port: number
  readonly db: number
  readonly username?: string
  readonly password?: string
  readonly tls?: { readonly servername?: string }
}

function parseUrl(target: string | URL): Parsed {
  const url = URL.parse(String(target))
  // The text may hold a password: it is not repeated.
  if (!url) throw new IdemqError('INVALID_URL', 'redis: not a URL; expected redis://host:6379')
  const kind = schemes[url.protocol]
  const where = hostOf(url)
  if (!kind) throw new IdemqError('INVALID_URL', `${where}: the scheme must be ${Object.keys(schemes).join(' or ')}`)
  if (url.hostname === '') throw new IdemqError('INVALID_URL', `${where}: the host is missing`)
  if (url.hash !== '') throw new IdemqError('INVALID_URL', `${where}: what follows # means nothing`)
  const path = url.pathname.replace(/^\//, '')
  if (!/^\d{0,5}$/.test(path)) {
    throw new IdemqError('INVALID_URL', `${where}: the path is '${path}', must be the number of a database`)
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const username = decodePart(url.username, where)
  const password = decodePart(url.password, where)
  return {
    host,
    port: url.port === '' ? 6379 : Number(url.port),
    db: Number(path),
    ...(username !== '' && { username }),
    ...(password !== '' && { password }),
    ...(kind === 'tls' && { tls: isIP(host) ? {} : { servername: host } }),
  }
}

function decodePart(part: string, where: string): string {
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw new IdemqError('INVALID_URL', `${where}: user and password must be percent-encoded`, cause)
  }
}

/** A URL without what is secret. */
function hostOf(url: URL): string {
  return `${url.protocol}//${url.host}`
}
