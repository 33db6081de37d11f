import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test, vi } from 'vitest'
import { type BedServer, bed, bedCluster, type ServerName, servers } from './index.ts'
import { answers } from './probe.ts'

/** The version that a server itself states, and how long the whole test may take with an image still to be built. */
const stated: [name: ServerName, command: string[], version: RegExp][] = [
  ['rabbitmq-4.0', ['rabbitmqctl', 'version'], /^4\.0\./],
  ['rabbitmq-4.3', ['rabbitmqctl', 'version'], /^4\.3\./],
  ['kafka', ['sh', '-c', 'ls /opt/kafka/lib* | grep server-common'], /-4\.4\./],
  ['kafka-3.9', ['sh', '-c', 'ls /opt/kafka/lib* | grep server-common'], /-3\.9\./],
  ['elasticmq', ['sh', '-c', 'ls /opt/*/lib | grep -i elasticmq'], /-1\.7\./],
  ['nats', ['nats-server', '--version'], /v2\.10\./],
]

test.each(stated)(
  '%s serves as the version it stands for and comes back from a restart and a kill',
  async (name, command, version) => {
    const server = await bed(name)
    try {
      expect(server.url).toContain(`127.0.0.1:${server.port}`)
      expect(await server.exec(command)).toMatch(version)
      await server.restart()
      await server.kill()
      expect(await serves(server)).toBe(false)
      await server.start()
      expect(await serves(server)).toBe(true)
    } finally {
      await server.stop()
    }
  },
  300_000,
)

test('a Kafka client that comes through the proxy is sent back through the proxy', async () => {
  const server = await bed('kafka')
  try {
    const proxy = await server.proxy()
    expect((await kafkaMetadata(server)).port).toBe(server.port)
    expect((await kafkaMetadata(proxy)).port).toBe(proxy.port)
    await proxy.cut()
    expect(await serves({ ...server, port: proxy.port })).toBe(false)
    expect(await serves(server)).toBe(true)
  } finally {
    await server.stop()
  }
}, 300_000)

test('three Kafka brokers are one cluster, and the others go on without a killed one', async () => {
  const { nodes, url, stop } = await bedCluster('kafka', 3)
  try {
    const [first, second, third] = nodes as [BedServer, BedServer, BedServer]
    expect(url).toBe(`kafka://${nodes.map(({ host, port }) => `${host}:${port}`).join(',')}`)
    const brokers = (of: BedServer, count: number): Promise<void> =>
      vi.waitFor(async () => expect((await kafkaMetadata(of)).brokers).toBe(count), { timeout: 20_000, interval: 100 })
    for (const node of nodes) await brokers(node, 3)
    await first.kill()
    for (const node of [second, third]) await brokers(node, 2)
    await first.start()
    for (const node of nodes) await brokers(node, 3)
  } finally {
    await stop()
  }
}, 300_000)

test('ElasticMQ names a queue after the way a client came, and keeps messages over a kill', async () => {
  const server = await bed('elasticmq')
  try {
    const proxy = await server.proxy()
    const through = await sqs(proxy.url, { Action: 'CreateQueue', QueueName: 'kept' })
    expect(through).toContain(`<QueueUrl>${proxy.url}/`)
    const url = `${server.url}/000000000000/kept`
    await sqs(url, { Action: 'SendMessage', MessageBody: 'still here' })
    await server.kill()
    await server.start()
    expect(await sqs(url, { Action: 'ReceiveMessage' })).toContain('still here')
  } finally {
    await server.stop()
  }
}, 300_000)

test('the Cloud Tasks emulator serves its keys on a port of its own', async () => {
  const server = await bed('cloud-tasks', {
    args: ({ host, ports }) => ['-openid-issuer', `http://${host}:${ports.issuer}`],
  })
  try {
    const issuer = `http://${server.host}:${server.ports.issuer}`
    const found = await fetch(`${issuer}/.well-known/openid-configuration`)
    expect(await found.json()).toMatchObject({ issuer })
  } finally {
    await server.stop()
  }
}, 300_000)

test('Sidekiq runs a job in Ruby that was pushed from here', async () => {
  const redis = await bed('redis')
  try {
    const worker = `class Greet
      include Sidekiq::Job
      def perform(name) = Sidekiq.redis { |redis| redis.call('LPUSH', 'greeted', name) }
    end`
    const sidekiq = await bed('sidekiq', {
      env: { REDIS_URL: redis.innerUrl },
      files: { '/bed/worker.rb': worker },
    })
    try {
      const job = {
        class: 'Greet',
        args: ['Ada'],
        jid: 'a'.repeat(24),
        retry: false,
        queue: 'default',
        created_at: Date.now(),
      }
      await redis.exec(['redis-cli', 'LPUSH', 'queue:default', JSON.stringify(job)])
      expect(await redis.exec(['redis-cli', 'BLPOP', 'greeted', '10'])).toContain('Ada')
    } finally {
      await sidekiq.stop()
    }
  } finally {
    await redis.stop()
  }
}, 300_000)

const serves = (server: Pick<BedServer, 'name' | 'host' | 'port'>): Promise<boolean> =>
  answers(server.host, server.port, servers[server.name].probe, 2_000)

async function sqs(url: string, parameters: Record<string, string>): Promise<string> {
  const response = await fetch(url, { method: 'POST', body: new URLSearchParams(parameters) })
  const text = await response.text()
  expect(response.status, text).toBe(200)
  return text
}

/** Of the broker's answer to Metadata version 0 for no topic: how many brokers it knows, and the first one's port. */
async function kafkaMetadata(endpoint: { host: string; port: number }): Promise<{ brokers: number; port: number }> {
  const socket = connect(endpoint)
  try {
    socket.write(Buffer.from([0, 0, 0, 18, 0, 3, 0, 1, 0, 0, 0, 7, 0, 4, ...Buffer.from('idem'), 0, 0, 0, 0]))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    // Size, correlation id, count of brokers, then the first: node id, host, port.
    return { brokers: answer.readInt32BE(8), port: answer.readInt32BE(18 + answer.readUInt16BE(16)) }
  } finally {
    socket.destroy()
  }
}
