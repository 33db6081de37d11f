/** What errors of Kafka and of its client mean to a caller. */
import { type ErrorCode, IdemqError } from '@idemq/core'

interface Meaning {
  readonly code: ErrorCode
  readonly advice: string
}

const unauthorized: Meaning = { code: 'UNAUTHORIZED', advice: 'check user, password, SASL mechanism and ACLs' }
const moving: Meaning = { code: 'BROKER_BUSY', advice: 'the cluster is electing or moving: it passes by itself' }
const missing: Meaning = { code: 'QUEUE_MISSING', advice: "declare it with { declare: 'create' }" }
const tooLarge: Meaning = {
  code: 'BODY_TOO_LARGE',
  advice: 'raise max.message.bytes of the topic, or lower maxBodyBytes',
}
const tooFewReplicas: Meaning = {
  code: 'BROKER_READ_ONLY',
  advice: 'fewer replicas are in sync than min.insync.replicas',
}
const storage: Meaning = { code: 'BROKER_FULL', advice: 'the broker cannot write: see its disk and its log' }
const unreachable: Meaning = {
  code: 'BROKER_UNAVAILABLE',
  advice: 'check that the brokers run and can be reached; kafkas: is for brokers with TLS, kafka: for those without',
}

/** By the name of the protocol's error code. https://kafka.apache.org/protocol#protocol_error_codes */
const meanings: Readonly<Record<string, Meaning>> = {
  TOPIC_AUTHORIZATION_FAILED: unauthorized,
  GROUP_AUTHORIZATION_FAILED: unauthorized,
  CLUSTER_AUTHORIZATION_FAILED: unauthorized,
  SASL_AUTHENTICATION_FAILED: unauthorized,
  ILLEGAL_SASL_STATE: unauthorized,
  UNSUPPORTED_SASL_MECHANISM: unauthorized,
  UNKNOWN_TOPIC_OR_PARTITION: missing,
  MESSAGE_TOO_LARGE: tooLarge,
  RECORD_LIST_TOO_LARGE: tooLarge,
  NOT_ENOUGH_REPLICAS: tooFewReplicas,
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: tooFewReplicas,
  KAFKA_STORAGE_ERROR: storage,
  LOG_DIR_NOT_FOUND: storage,
  LEADER_NOT_AVAILABLE: moving,
  NOT_LEADER_FOR_PARTITION: moving,
  GROUP_LOAD_IN_PROGRESS: moving,
  GROUP_COORDINATOR_NOT_AVAILABLE: moving,
  NOT_COORDINATOR_FOR_GROUP: moving,
  NOT_CONTROLLER: moving,
  REBALANCE_IN_PROGRESS: moving,
  ILLEGAL_GENERATION: moving,
  UNKNOWN_MEMBER_ID: moving,
  GROUP_MAX_SIZE_REACHED: { code: 'BROKER_BUSY', advice: 'the group has as many members as group.max.size allows' },
  INVALID_SESSION_TIMEOUT: {
    code: 'INVALID_OPTION',
    advice: 'sessionTimeoutMs must be within group.min.session.timeout.ms and group.max.session.timeout.ms',
  },
  INVALID_REPLICATION_FACTOR: { code: 'INVALID_OPTION', advice: 'replicationFactor exceeds the number of brokers' },
  INCONSISTENT_GROUP_PROTOCOL: {
    code: 'QUEUE_MISMATCH',
    advice: 'another program consumes with this group id: use another group or prefix',
  },
  INVALID_TOPIC_EXCEPTION: {
    code: 'QUEUE_MISMATCH',
    advice: 'a topic exists whose name differs in . and _ only: use another prefix',
  },
  POLICY_VIOLATION: { code: 'QUEUE_MISMATCH', advice: "the cluster's policy refuses such topics" },
  INVALID_CONFIG: { code: 'QUEUE_MISMATCH', advice: 'the cluster refuses these settings' },
  OFFSET_METADATA_TOO_LARGE: {
    code: 'QUEUE_MISMATCH',
    advice: 'the brokers must have offset.metadata.max.bytes at 4096 or more, as they do by default',
  },
  UNSUPPORTED_VERSION: { code: 'UNSUPPORTED', advice: 'Kafka 2.1 or newer is needed' },
}

/** The same by the class of the client's error, where the broker said nothing. */
const meaningsByName: Readonly<Record<string, Meaning>> = {
  KafkaJSSASLAuthenticationError: unauthorized,
  KafkaJSNotImplemented: {
    code: 'UNSUPPORTED',
    advice: 'another producer compresses in a way this client cannot read: use gzip or none',
  },
}

/** The name of the error code that the broker answered, wherever the client wrapped it. */
export function protocolError(thrown: unknown): string | undefined {
  for (const error of causes(thrown)) if (typeof error.type === 'string') return error.type
  return undefined
}

/** Whether a send was refused as a whole, before or by all its brokers: nothing of it is stored. */
export function refusesTopic(thrown: unknown): boolean {
  const type = protocolError(thrown) ?? ''
  return meanings[type] === unauthorized || meanings[type] === missing
}

export function kafkaError(thrown: unknown, what: string, where: string): IdemqError {
  if (thrown instanceof IdemqError) return thrown
  const chain = causes(thrown)
  const type = protocolError(thrown)
  const named = chain.map(({ name }) => meaningsByName[name ?? '']).find((meaning) => meaning !== undefined)
  const meaning = named ?? (type === undefined ? undefined : meanings[type]) ?? unreachable
  const text = chain.at(-1)?.message ?? String(thrown)
  return new IdemqError(meaning.code, `kafka: cannot ${what}, ${where}: ${text}; ${meaning.advice}`, thrown)
}

interface Cause {
  readonly name?: string
  readonly message?: string
  readonly type?: unknown
  readonly cause?: unknown
  readonly errors?: readonly unknown[]
}

function causes(thrown: unknown): Cause[] {
  const chain: Cause[] = []
  for (let error = thrown as Cause | undefined; error && chain.length < 10; ) {
    chain.push(error)
    error = (error.errors?.[0] ?? error.cause) as Cause | undefined
  }
  return chain
}
