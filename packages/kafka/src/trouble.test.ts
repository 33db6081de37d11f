/** What goes wrong on real brokers has a code, and a message that says what to do. */
import { randomUUID } from 'node:crypto'
import { bed } from '@idemq/conformance/bed'
import type { IdemqError } from '@idemq/core'
import kafkajs from 'kafkajs'
import { afterAll, describe, expect, it } from 'vitest'
import { adminOf } from '../test/admin.ts'
import { message, newQueue, open, openReceiver, signal, texts } from '../test/server.ts'
import { names } from './names.ts'
import type { KafkaWarning } from './warning.ts'

const server = await bed('kafka')
afterAll(() => server.stop())
const { admin, native } = await adminOf(server)
const { url } = server
const topics = names('')

async function alter(topic: string, name: string, value: string): Promise<void> {
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name, value }] }],
  })
}

it.each([
  ['partitions', { partitions: 3 }],
  ['replication factor', { replicationFactor: 2 }],
  ['min.insync.replicas', { minInsyncReplicas: 2 }],
  ['retention.ms', { retentionMs: 30 * 24 * 3_600_000 }],
  ['max.message.bytes', { maxBodyBytes: 2 * 1024 * 1024 }],
])('a queue with less %s than is insisted on is a mismatch that names it', async (setting, option) => {
  const queue = newQueue()
  await open(url).driver.declare(queue, 'create', signal)
  for (const mode of ['create', 'check'] as const) {
    const declared = open(url, option).driver.declare(queue, mode, signal)
    await expect(declared).rejects.toMatchObject({ code: 'QUEUE_MISMATCH', message: expect.stringContaining(setting) })
  }
})

it('a dead-letter topic that would forget is a mismatch', async () => {
  const { driver } = open(url)
  const queue = newQueue()
  await driver.declare(queue, 'create', signal)
  const topic = topics.dead(queue.name, queue.group)
  await alter(topic, 'cleanup.policy', 'delete')
  await expect(driver.declare(queue, 'check', signal)).rejects.toMatchObject({
    code: 'QUEUE_MISMATCH',
    message: expect.stringContaining(topic),
  })
})

it('more replicas than brokers are refused', async () => {
  const declared = open(url, { replicationFactor: 3 }).driver.declare(newQueue(), 'create', signal)
  await expect(declared).rejects.toMatchObject({ code: 'INVALID_OPTION' })
})

it('a topic that takes less than is promised fails the large ones alone', async () => {
  const { driver } = open(url)
  const queue = newQueue()
  await driver.declare(queue, 'create', signal)
  await alter(topics.queue(queue.name), 'max.message.bytes', '10000')
  const batch = [message('first'), message('x'.repeat(20_000)), message('last')]
  const sent = await driver.send({ name: queue.name }, batch, signal)
  expect(sent.map(({ status }) => status)).toEqual(['stored', 'failed', 'stored'])
  expect(sent[1]).toMatchObject({ error: { code: 'BODY_TOO_LARGE' } })
})

it('a queue that is missing is said to be', async () => {
  const { driver } = open(url)
  const queue = newQueue()
  const missing = { code: 'QUEUE_MISSING' }
  await expect(driver.send({ name: queue.name }, [message('x')], signal)).rejects.toMatchObject(missing)
  await expect(driver.sendDead(queue, [message('x')], signal)).rejects.toMatchObject(missing)
  await expect(openReceiver({ driver }, queue)).rejects.toMatchObject(missing)
  await expect(driver.stats(queue, signal)).rejects.toMatchObject(missing)
  await expect(driver.scanDead(queue, async () => 'keep', signal)).rejects.toMatchObject(missing)
  await driver.declare(queue, 'create', signal)
  expect(await driver.send({ name: queue.name }, [message('x')], signal)).toEqual([{ status: 'stored' }])
})

it('brokers out of reach are, and a password is not told', async () => {
  const { driver } = open('kafka://user:secret@127.0.0.1:1,127.0.0.1:2', { answerTimeoutMs: 500 })
  const queue = newQueue()
  const errors = await Promise.all(
    [
      driver.declare(queue, 'create', signal),
      driver.send(queue, [message('x')], signal),
      driver.stats(queue, signal),
    ].map((call) =>
      call.then(
        () => undefined,
        (error: IdemqError) => error,
      ),
    ),
  )
  for (const error of errors) {
    expect(error).toMatchObject({ code: 'BROKER_UNAVAILABLE', message: expect.stringContaining('127.0.0.1:1') })
    expect(JSON.stringify([error!.message, String(error!.cause)])).not.toContain('secret')
  }
  // What may pass by itself is left to the next receive.
  const receiver = await openReceiver({ driver }, queue)
  await expect(receiver.receive(1, 5_000, signal)).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
})

it('another program in the group is a mismatch', async () => {
  const { driver } = open(url)
  const queue = newQueue()
  await driver.declare(queue, 'create', signal)
  const other = native.consumer({ groupId: topics.group(queue.name, queue.group) })
  await other.connect()
  await other.subscribe({ topics: [topics.queue(queue.name)] })
  const joined = new Promise<void>((resolve) => other.on('consumer.group_join', () => resolve()))
  await other.run({ eachMessage: async () => {} })
  await joined
  await expect(openReceiver({ driver }, queue)).rejects.toMatchObject({ code: 'QUEUE_MISMATCH' })
  await other.disconnect()
})

it('warns where a worker has no work, or more in hand than its partitions allow', async () => {
  const warnings: KafkaWarning[] = []
  const options = { partitions: 1, onWarning: (warning: KafkaWarning) => warnings.push(warning) }
  const queue = newQueue()
  const one = open(url, options)
  await one.driver.declare(queue, 'create', signal)
  await openReceiver(one, queue, { maxUnsettled: 5_000 })
  await openReceiver(open(url, options), queue)
  expect(warnings.map(({ code, message }) => [code, message.includes('5000')])).toEqual([
    ['IDEMQ_KAFKA_FEW_PARTITIONS', true],
    ['IDEMQ_KAFKA_FEW_PARTITIONS', false],
  ])
})

describe('with users', async () => {
  const secret = randomUUID()
  const jaas = `org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="${secret}" user_bob="${secret}";`
  const guarded = await bed('kafka', {
    env: {
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'DIRECT:SASL_PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT',
      KAFKA_INTER_BROKER_LISTENER_NAME: 'PROXIED',
      KAFKA_SASL_ENABLED_MECHANISMS: 'PLAIN',
      KAFKA_LISTENER_NAME_DIRECT_PLAIN_SASL_JAAS_CONFIG: jaas,
      KAFKA_AUTHORIZER_CLASS_NAME: 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      KAFKA_SUPER_USERS: 'User:ANONYMOUS;User:alice',
    },
  })
  afterAll(() => guarded.stop())
  const urlOf = (user: string, password: string): string => guarded.url.replace('//', `//${user}:${password}@`)
  const unauthorized = { code: 'UNAUTHORIZED', retryable: false, message: expect.not.stringContaining(secret) }

  it('a wrong password is UNAUTHORIZED, for every call', async () => {
    const { driver } = open(urlOf('alice', 'wrong'))
    const queue = newQueue()
    await expect(driver.declare(queue, 'create', signal)).rejects.toMatchObject(unauthorized)
    await expect(driver.send(queue, [message('x')], signal)).rejects.toMatchObject(unauthorized)
    await expect(openReceiver({ driver }, queue)).rejects.toMatchObject(unauthorized)
  })

  it('what the ACLs refuse is UNAUTHORIZED, and what they allow works', async () => {
    const queue = newQueue()
    const alice = open(urlOf('alice', secret))
    await alice.driver.declare(queue, 'create', signal)
    expect(await alice.driver.send(queue, [message('x')], signal)).toEqual([{ status: 'stored' }])
    const { driver } = open(urlOf('bob', secret))
    await expect(driver.declare(queue, 'create', signal)).rejects.toMatchObject(unauthorized)
    await expect(driver.send(queue, [message('x')], signal)).rejects.toMatchObject(unauthorized)
    await expect(openReceiver({ driver }, queue)).rejects.toMatchObject(unauthorized)
    expect(texts(await (await openReceiver(alice, queue)).receive(5, 5_000, signal))).toEqual(['x'])
  })
})
