/** How a cluster is reached: by call or by URL. */
import { type Adapter, type Clock, IdemqError, type OpenUrl, reserveBytes, systemClock } from '@idemq/core'
import type { KafkaConfig } from 'kafkajs'
import { kafkaDriver } from './driver.ts'
import { kafkajsClient } from './kafkajs-client.ts'
import type { KafkaWarning } from './warning.ts'

const day = 24 * 3_600_000

export interface KafkaOptions {
  /** `kafka://user:password@host:9092,host:9092`; `kafkas:` for TLS. */
  readonly url?: string | URL
  /** Instead of `url`, or beside it for what a URL cannot say: a configuration of kafkajs (brokers, ssl, sasl, …). */
  readonly client?: Partial<KafkaConfig>
  /** How user and password of the URL are shown to the broker. @default 'plain' */
  readonly saslMechanism?: 'plain' | 'scram-sha-256' | 'scram-sha-512'
  /** Begins the names of all topics and groups: letters, digits, '.' and '-'. @default '' */
  readonly prefix?: string
  /**
   * Partitions of a queue. Insisted on where given; else 6 for a new queue and what is there for an old one. Work within
   * a partition is parallel: they limit processes, not handlers.
   */
  readonly partitions?: number
  /** Replicas of a new topic, insisted on where given. @default 3, or the number of brokers if that is less */
  readonly replicationFactor?: number
  /** Replicas that confirm, insisted on where given. @default 2 of three replicas, else 1 */
  readonly minInsyncReplicas?: number
  /** Milliseconds a job may wait, from 1 minute. Topics that keep less are refused. @default 7 days */
  readonly retentionMs?: number
  /** Largest body in bytes, from 32 KiB to 64 MiB. @default 960 KiB */
  readonly maxBodyBytes?: number
  /** Milliseconds without a sign of life after which a worker's jobs go to others, from 1,000. @default 10_000 */
  readonly sessionTimeoutMs?: number
  /** Milliseconds without an answer after which a connection is given up, from 100 to 600,000. @default 10_000 */
  readonly answerTimeoutMs?: number
  /** Told what weakens the promises, or wastes a worker. @default process.emitWarning */
  readonly onWarning?: (warning: KafkaWarning) => void
  readonly clock?: Clock
}

type Resolved = Required<Omit<KafkaOptions, Free>> & Pick<KafkaOptions, Free>
type Free = 'url' | 'client' | 'partitions' | 'replicationFactor' | 'minInsyncReplicas'

const defaults: Omit<Resolved, Free> = {
  saslMechanism: 'plain',
  prefix: '',
  retentionMs: 7 * day,
  maxBodyBytes: 960 * 1024,
  sessionTimeoutMs: 10_000,
  answerTimeoutMs: 10_000,
  onWarning: ({ code, message }) => process.emitWarning(message, { type: 'IdemqWarning', code }),
  clock: systemClock,
}

/** Lowest and highest value of each number. */
const ranges = {
  partitions: [1, 10_000],
  replicationFactor: [1, 100],
  minInsyncReplicas: [1, 100],
  retentionMs: [60_000, 100 * 365 * day],
  maxBodyBytes: [2 * reserveBytes + 1, 64 * 1024 * 1024],
  sessionTimeoutMs: [1_000, 1_800_000],
  answerTimeoutMs: [100, 600_000],
} as const

const texts = ['prefix', 'saslMechanism'] as const
const mechanisms: readonly string[] = ['plain', 'scram-sha-256', 'scram-sha-512']
/** Further brokers: where `connect` makes of several hosts in a URL. */
const hostsParameter = 'hosts'

/**
 * A broker on one cluster. Opens nothing yet: the first call does.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function kafka(target: string | KafkaOptions): Adapter {
  const options = resolveOptions(typeof target === 'string' ? { url: target } : target)
  const { where, config } = clientConfig(options)
  const { sessionTimeoutMs } = options
  const timeouts = {
    heartbeatMs: Math.min(1_000, Math.floor(sessionTimeoutMs / 5)),
    rebalanceTimeoutMs: sessionTimeoutMs,
  }
  return { driver: kafkaDriver(kafkajsClient(config, where), { ...options, ...timeouts }) }
}

/**
 * `kafka://user:password@host:9092?hosts=host:9092,host:9092`, with any of `?prefix=…&partitions=…&replicationFactor=…&
 * minInsyncReplicas=…&retentionMs=…&maxBodyBytes=…&sessionTimeoutMs=…&answerTimeoutMs=…&saslMechanism=…`. For TLS `kafkas:`.
 * @throws IdemqError INVALID_URL naming the part, INVALID_OPTION
 */
export const openUrl: OpenUrl = async (url, { clock }) => {
  const options: Record<string, unknown> = {}
  for (const [name, value] of url.searchParams) {
    if (name in ranges) options[name] = value.trim() === '' ? Number.NaN : Number(value)
    else if ((texts as readonly string[]).includes(name)) options[name] = value
    else if (name !== hostsParameter) {
      const known = [hostsParameter, ...Object.keys(ranges), ...texts].join(', ')
      throw new IdemqError('INVALID_OPTION', `${url.protocol}//${url.host}: unknown option '${name}', known: ${known}`)
    }
  }
  return kafka({ ...options, url, clock })
}

function resolveOptions(given: KafkaOptions): Resolved {
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const options: Resolved = { ...defaults, ...set }
  const refuse = (what: string): never => {
    throw new IdemqError('INVALID_OPTION', `kafka: ${what}`)
  }
  if (options.url === undefined && options.client?.brokers === undefined) refuse('give a url, or client.brokers')
  if (!/^[A-Za-z0-9.-]{0,50}$/.test(options.prefix)) {
    refuse(`prefix is '${options.prefix}', must be at most 50 letters, digits, '.' or '-'`)
  }
  if (!mechanisms.includes(options.saslMechanism)) {
    refuse(`saslMechanism is '${options.saslMechanism}', must be one of ${mechanisms.join(', ')}`)
  }
  for (const name of Object.keys(ranges) as (keyof typeof ranges)[]) {
    const [min, max] = ranges[name]
    const value = options[name]
    if (value !== undefined && !(Number.isInteger(value) && value >= min && value <= max)) {
      refuse(`${name} is ${value}, must be an integer from ${min} to ${max}`)
    }
  }
  const { replicationFactor, minInsyncReplicas = 1 } = options
  if (replicationFactor !== undefined && minInsyncReplicas > replicationFactor) {
    refuse(`minInsyncReplicas is ${minInsyncReplicas}, must not exceed replicationFactor, ${replicationFactor}`)
  }
  return options
}

function clientConfig({ url, client, answerTimeoutMs, saslMechanism }: Resolved): {
  where: string
  config: KafkaConfig
} {
  const timeouts = { clientId: 'idemq', connectionTimeout: answerTimeoutMs, requestTimeout: answerTimeoutMs }
  if (url === undefined) {
    return { where: 'the given client', config: { ...timeouts, ...client, brokers: client!.brokers! } }
  }
  const { where, brokers, tls, username, password } = parseUrl(url)
  const sasl =
    username === '' ? {} : { sasl: { mechanism: saslMechanism, username, password } as KafkaConfig['sasl'] & object }
  return { where, config: { ...timeouts, brokers, ...(tls && { ssl: true }), ...sasl, ...client } }
}

interface Parsed {
  readonly where: string
  readonly brokers: string[]
  readonly tls: boolean
  readonly username: string
  readonly password: string
}

function parseUrl(target: string | URL): Parsed {
  // The text may hold a password: it is not repeated.
  const parts = /^(kafkas?):\/\/(?:([^@/?#]*)@)?([^/?#]*)(\/?)([^?#]*)(\?[^#]*)?(#.*)?$/.exec(String(target))
  if (!parts)
    throw new IdemqError('INVALID_URL', 'kafka: not a URL of the form kafka://host:9092,host:9092 or kafkas://…')
  const [, scheme, user = '', hosts = '', , path = '', query = '', hash] = parts
  const where = `${scheme}://${hosts}`
  const more = new URLSearchParams(query).get(hostsParameter)?.split(',') ?? []
  const brokers = [...hosts.split(','), ...more].map((host) => brokerOf(host, where))
  if (path !== '') throw new IdemqError('INVALID_URL', `${where}: the path '${path}' means nothing`)
  if (hash !== undefined) throw new IdemqError('INVALID_URL', `${where}: what follows # means nothing`)
  const [username = '', ...rest] = user.split(':')
  return {
    where,
    brokers,
    tls: scheme === 'kafkas',
    username: decodePart(username, where),
    password: decodePart(rest.join(':'), where),
  }
}

function brokerOf(host: string, where: string): string {
  const [, name, port = '9092'] = /^(\[[0-9A-Fa-f:.]+\]|[^:\s[\]]+)(?::(\d{1,5}))?$/.exec(host) ?? []
  if (!name || Number(port) > 65_535)
    throw new IdemqError('INVALID_URL', `${where}: '${host}' is no broker, expected host:9092`)
  return `${name.replace(/^\[|\]$/g, '')}:${port}`
}

function decodePart(part: string, where: string): string {
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw new IdemqError('INVALID_URL', `${where}: user and password must be percent-encoded`, cause)
  }
}
