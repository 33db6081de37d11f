import { http, type Probe, postgresReady, speaksAmqp, speaksHttp2, speaksKafka, speaksRedis } from './probe.ts'

/** The servers of the bed, and the folders of `images/` with their Dockerfiles. */
export const serverNames = [
  'redis',
  'valkey',
  'postgres',
  'rabbitmq-4.0',
  'rabbitmq-4.3',
  'kafka',
  'kafka-3.9',
  'elasticmq',
  'cloud-tasks',
  'sidekiq',
  'nats',
  'toxiproxy',
] as const

export type ServerName = (typeof serverNames)[number]

/** Where one server is reached on the machine. */
export interface Place {
  readonly host: string
  readonly port: number
  /** Its name on the bed's own network. */
  readonly hostname: string
  /** The server's further ports by their name. */
  readonly ports: Readonly<Record<string, number>>
  /** Where its proxy listens, once there is one. */
  readonly proxyPort: number
}

/**
 * One server of the bed. Adding one is an entry here and a folder of the same name in `images/`, whose Dockerfile builds
 * a stand-in for the ordinary image: the same command and environment start either.
 */
export interface Server {
  /** The ordinary image, pulled where a registry answers. Absent where none is published: it is always built. */
  readonly image?: string
  /** What is fetched on this machine into the build's context first, by the client of its language. */
  readonly fetch?: 'maven' | { readonly go: string }
  /** The server whose folder in `images/` it shares; its own has only what differs. */
  readonly variantOf?: ServerName
  readonly command: readonly string[] | ((at: Place) => readonly string[])
  readonly env?: Readonly<Record<string, string>> | ((at: Place) => Readonly<Record<string, string>>)
  /** What a node's environment has besides where several make one cluster. Absent where they cannot. */
  readonly clusterEnv?: (nodes: readonly Place[], index: number) => Readonly<Record<string, string>>
  /** The port inside the container. */
  readonly port: number
  /** Further ports inside the container, by name. A proxy stands before the one named `proxied`, else before `port`. */
  readonly ports?: Readonly<Record<string, number>>
  /** True where the server itself must reach what listens on this machine's loopback. It then listens there too. */
  readonly onLoopback?: true
  readonly probe: Probe
  /** From start to ready at most, on a slow machine. @default 30000 */
  readonly readyMs?: number
  /** `hosts`: `host:port`, in a cluster several with commas between. */
  readonly url: (hosts: string) => string
}

const redisFlags = [
  ...['--bind', '0.0.0.0', '--protected-mode', 'no', '--dir', '/data'],
  ...['--appendonly', 'yes', '--appendfsync', 'always', '--save', ''],
]

const kafka: Server = {
  image: 'apache/kafka:4.4.0',
  fetch: 'maven',
  command: [],
  // A client goes where the broker says it is, so what comes through the proxy, and what comes from a broker, comes to a
  // listener of its own.
  env: ({ host, port, proxyPort, hostname }) => ({
    CLUSTER_ID: '4L6g3nShT-eMCtK--X86sw',
    KAFKA_NODE_ID: '1',
    KAFKA_PROCESS_ROLES: 'broker,controller',
    KAFKA_LISTENERS: 'DIRECT://0.0.0.0:9092,PROXIED://0.0.0.0:9094,NODES://0.0.0.0:9095,CONTROLLER://0.0.0.0:9093',
    KAFKA_ADVERTISED_LISTENERS: `DIRECT://${host}:${port},PROXIED://${host}:${proxyPort},NODES://${hostname}:9095`,
    KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,NODES:PLAINTEXT',
    KAFKA_INTER_BROKER_LISTENER_NAME: 'NODES',
    KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
    KAFKA_CONTROLLER_QUORUM_VOTERS: '1@localhost:9093',
    KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
    KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
    KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
    KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR: '1',
    KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR: '1',
    KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
    KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS: '1000',
    // A killed broker may come back this soon: its former self must have expired.
    KAFKA_BROKER_SESSION_TIMEOUT_MS: '1500',
    KAFKA_BROKER_HEARTBEAT_INTERVAL_MS: '300',
    KAFKA_AUTO_CREATE_TOPICS_ENABLE: 'false',
    KAFKA_HEAP_OPTS: '-Xmx384m',
  }),
  clusterEnv: (nodes, index) => ({
    KAFKA_NODE_ID: `${index + 1}`,
    KAFKA_CONTROLLER_QUORUM_VOTERS: nodes.map(({ hostname }, i) => `${i + 1}@${hostname}:9093`).join(','),
    KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '3',
    KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '3',
    KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '2',
  }),
  port: 9092,
  ports: { proxied: 9094 },
  probe: speaksKafka,
  readyMs: 90_000,
  url: (hosts) => `kafka://${hosts}`,
}

export const servers: Readonly<Record<ServerName, Server>> = {
  redis: {
    image: 'redis:8',
    command: ['redis-server', ...redisFlags],
    port: 6379,
    probe: speaksRedis,
    url: (hosts) => `redis://${hosts}`,
  },
  valkey: {
    image: 'valkey/valkey:8',
    command: ['valkey-server', ...redisFlags],
    port: 6379,
    probe: speaksRedis,
    url: (hosts) => `redis://${hosts}`,
  },
  postgres: {
    image: 'postgres:17',
    command: ['postgres', '-c', 'max_connections=200'],
    env: { POSTGRES_PASSWORD: 'idemq' },
    port: 5432,
    probe: postgresReady('postgres'),
    url: (hosts) => `postgres://postgres:idemq@${hosts}/postgres`,
  },
  'rabbitmq-4.0': {
    image: 'rabbitmq:4.0',
    command: ['rabbitmq-server'],
    port: 5672,
    probe: speaksAmqp,
    readyMs: 90_000,
    url: (hosts) => `amqp://guest:guest@${hosts}`,
  },
  'rabbitmq-4.3': {
    image: 'rabbitmq:4.3',
    command: ['rabbitmq-server'],
    port: 5672,
    probe: speaksAmqp,
    readyMs: 90_000,
    url: (hosts) => `amqp://guest:guest@${hosts}`,
  },
  kafka,
  'kafka-3.9': { ...kafka, image: 'apache/kafka:3.9.2', variantOf: 'kafka' },
  elasticmq: {
    image: 'softwaremill/elasticmq:1.7.1',
    fetch: 'maven',
    command: [
      // A queue's URL names the server as the client that asked for it did, be it through a proxy.
      '-Dnode-address.host=*',
      '-Drest-sqs.sqs-limits=strict',
      '-Dmessages-storage.enabled=true',
      '-Dmessages-storage.uri=jdbc:h2:/tmp/elasticmq;WRITE_DELAY=0',
      '-Dpekko.loglevel=WARNING',
    ],
    port: 9324,
    probe: http('/?Action=ListQueues'),
    readyMs: 90_000,
    url: (hosts) => `http://${hosts}`,
  },
  'cloud-tasks': {
    fetch: { go: 'github.com/aertje/cloud-tasks-emulator' },
    onLoopback: true,
    // With -openid-issuer http://127.0.0.1:<ports.issuer> added it signs tokens, and serves the public key for them on
    // that port of every address of the machine: so not unasked.
    command: ({ host, port }) => ['-host', host, '-port', `${port}`],
    port: 8123,
    ports: { issuer: 8124 },
    probe: speaksHttp2,
    url: (hosts) => `http://${hosts}`,
  },
  sidekiq: {
    command: ['sidekiq', '-r', '/bed/boot.rb', '-c', '2'],
    port: 7433,
    probe: { send: '', ready: (answer) => answer.startsWith('ready') },
    url: (hosts) => `tcp://${hosts}`,
  },
  nats: {
    image: 'nats:2.10',
    command: ['--jetstream', '--store_dir', '/tmp/nats'],
    port: 4222,
    probe: { send: '', ready: (answer) => answer.startsWith('INFO ') },
    url: (hosts) => `nats://${hosts}`,
  },
  toxiproxy: {
    fetch: { go: 'github.com/Shopify/toxiproxy/v2/cmd/server' },
    onLoopback: true,
    command: ({ host, port }) => [`-host=${host}`, `-port=${port}`],
    port: 8474,
    probe: http('/version'),
    url: (hosts) => `http://${hosts}`,
  },
}
