/** What errors of Redis and of its connection mean to a caller. */
import { type ErrorCode, IdemqError } from '@idemq/core'

interface Meaning {
  readonly code: ErrorCode
  readonly advice: string
}

/** By the first word of an error reply. https://github.com/redis/redis/blob/unstable/src/server.c (shared errors) */
const meanings: Readonly<Record<string, Meaning>> = {
  WRONGPASS: { code: 'UNAUTHORIZED', advice: 'check user and password' },
  NOAUTH: { code: 'UNAUTHORIZED', advice: 'the server wants a password: put it into the URL' },
  NOPERM: { code: 'UNAUTHORIZED', advice: 'allow the user the commands and keys that the README lists' },
  DENIED: { code: 'UNAUTHORIZED', advice: 'the server is in protected mode: set a password or bind an address' },
  READONLY: { code: 'BROKER_READ_ONLY', advice: 'this is a replica: connect to its primary' },
  OOM: { code: 'BROKER_FULL', advice: 'raise maxmemory, or let the workers drain the queues' },
  MISCONF: { code: 'BROKER_FULL', advice: 'the server cannot write to its disk: free space or mend its permissions' },
  NOREPLICAS: { code: 'BROKER_READ_ONLY', advice: 'too few replicas are connected (min-replicas-to-write)' },
  LOADING: { code: 'BROKER_BUSY', advice: 'the server is loading its data' },
  BUSY: { code: 'BROKER_BUSY', advice: 'the server runs a long script of somebody' },
  TRYAGAIN: { code: 'BROKER_BUSY', advice: 'the cluster is moving the slot of this queue' },
  MASTERDOWN: { code: 'BROKER_UNAVAILABLE', advice: 'the primary of this replica is down' },
  CLUSTERDOWN: { code: 'BROKER_UNAVAILABLE', advice: 'the cluster serves no requests' },
  MOVED: { code: 'INVALID_OPTION', advice: 'this is a node of a cluster: say cluster=true' },
  CROSSSLOT: { code: 'INVALID_OPTION', advice: 'this is a node of a cluster: say cluster=true' },
  WRONGTYPE: { code: 'QUEUE_MISMATCH', advice: 'a key of this queue is of another kind: use another prefix' },
}

const tlsRule = 'rediss: is for servers with TLS, redis: for those without'
const wrongDatabase: Meaning = { code: 'INVALID_OPTION', advice: 'the server has no such database' }
const tooOld: Meaning = { code: 'UNSUPPORTED', advice: 'Redis 6.2 or newer, or Valkey, is needed' }
const unreachable: Meaning = {
  code: 'BROKER_UNAVAILABLE',
  advice: `check that the server runs and can be reached; ${tlsRule}`,
}
const tls: Meaning = {
  code: 'BROKER_UNAVAILABLE',
  advice: `TLS was refused: ${tlsRule}, and the certificate must be valid`,
}

/** Whether a reply says that the stream or its group is gone: data was lost, or somebody deleted it. */
export function isGroupGone(thrown: unknown): boolean {
  const cause = thrown instanceof IdemqError ? thrown.cause : thrown
  return cause instanceof Error && /^UNBLOCKED|NOGROUP/.test(cause.message)
}

export function isScriptGone(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.startsWith('NOSCRIPT')
}

/** Whether the server answered with an error, so that the command is known not to have run to its end. */
export function isReply(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === 'ReplyError'
}

/** Whether this error comes up while a connection is set up and will not go away by connecting again. */
export function isWrongDatabase(thrown: unknown): boolean {
  return isReply(thrown) && /DB index|database is not|SELECT is not allowed/i.test((thrown as Error).message)
}

/**
 * An error of the server or the connection, as an IdemqError. `lastTrouble`: what the connection met last, which says
 * more than "the connection is closed".
 */
export function redisError(thrown: unknown, what: string, where: string, lastTrouble?: unknown): IdemqError {
  if (thrown instanceof IdemqError) return thrown
  const reply = isReply(thrown)
  const cause = reply ? thrown : (lastTrouble ?? thrown)
  const message = cause instanceof Error ? cause.message || nestedMessage(cause) : String(cause)
  // ioredis adds the command, which may be AUTH with the password or a script with every body.
  if (cause instanceof Error) delete (cause as { command?: unknown }).command
  const meaning = reply || isReply(cause) ? meaningOfReply(message, cause) : meaningOfConnection(cause)
  return new IdemqError(meaning.code, `redis: cannot ${what}, ${where}: ${message}; ${meaning.advice}`, cause)
}

function meaningOfReply(message: string, cause: unknown): Meaning {
  if (isWrongDatabase(cause)) return wrongDatabase
  // What a script may not do has no code word of its own.
  if (/ACL failure in script|executing the script can't/.test(message)) return meanings.NOPERM!
  // A script passes on what its commands answered, behind a text of its own in some releases.
  const word = /^-?([A-Z]+)\b/.exec(message)?.[1]
  const meaning = meanings[word ?? ''] ?? Object.entries(meanings).find(([name]) => message.includes(`-${name} `))?.[1]
  if (meaning) return meaning
  if (/unknown command|Unknown Redis command|unknown subcommand|syntax error/i.test(message)) return tooOld
  return { code: 'QUEUE_MISMATCH', advice: 'what is stored is not what this release stores' }
}

function meaningOfConnection(cause: unknown): Meaning {
  const { code = '', message = '' } = (cause ?? {}) as { code?: string; message?: string }
  return /TLS|SSL|CERT|SELF_SIGNED|EPROTO/.test(code) || /\bTLS\b|\bSSL\b/.test(message) ? tls : unreachable
}

/** Connecting to several addresses of a name fails with one error for each. */
function nestedMessage(cause: Error): string {
  const { errors } = cause as { errors?: readonly Error[] }
  return errors?.map(({ message }) => message).join(', ') ?? cause.name
}
