import { expect, test } from 'vitest'
import { openTemporaryBroker } from '../temporary-broker.ts'
import { untilIdle } from '../until-idle.ts'
import { sendNotification } from './jobs.ts'
import { type Message, openMailService } from './mail-service.ts'
import { handleNotifications } from './worker.ts'

const notification = (recipient: string, businessId: string) => ({
  type: 'order-reserved' as const,
  recipient,
  businessId,
})

test('one message for each type, recipient and business id', async () => {
  await using broker = await openTemporaryBroker()
  const mail = openMailService(broker.file('mail.db'))
  for (const { mq, inbox } of [broker, await broker.another()]) {
    const worker = mq.worker({ inbox })
    handleNotifications(worker, mail)
    await worker.start()
  }
  const distinct = [
    notification('ann@example.com', 'order-1'),
    notification('ann@example.com', 'order-2'),
    notification('bob@example.com', 'order-1'),
  ]
  await broker.mq.enqueueMany(sendNotification, Array<typeof distinct>(20).fill(distinct).flat())
  await untilIdle(broker.mq, ['notifications'], { signal: AbortSignal.timeout(30_000) })
  const name = ({ recipient, businessId }: Message): string => `${recipient} ${businessId}`
  expect(mail.sent().map(name).toSorted()).toEqual(distinct.map(name).toSorted())
  mail.close()
})

test('through the outbox: sent if the transaction commits, and only then', async () => {
  await using broker = await openTemporaryBroker()
  const mail = openMailService(broker.file('mail.db'))
  const worker = broker.mq.worker({ inbox: broker.inbox })
  handleNotifications(worker, mail)
  await worker.start()
  await broker.relay().start()
  const outbox = broker.outbox()

  const signal = AbortSignal.timeout(30_000)
  const inTransaction = async (key: string, businessId: string, crash: boolean): Promise<unknown> => {
    const ref = { scope: 'default/test', key }
    const request = { ...ref, fingerprint: '', jobId: key, replay: 0, attempt: 1 }
    const [answer] = await broker.inbox.claim([request], { leaseMs: 30_000, retentionMs: 30_000 }, signal)
    if (answer?.status !== 'claimed') throw new Error(`claim: ${answer?.status}`)
    const { token } = answer
    return broker.inbox.transact?.(
      async (tx) => {
        await outbox.enqueue(tx, sendNotification, notification('ann@example.com', businessId))
        if (crash) throw new Error('rolled back')
      },
      () => ({ ...ref, token, state: 'completed', floor: 1, free: false, holdMs: 0 }),
      30_000,
      signal,
    )
  }
  await expect(inTransaction('a', 'order-1', true)).rejects.toThrow('rolled back')
  expect(await inTransaction('b', 'order-2', false)).toMatchObject({ status: 'committed' })
  const elsewhere = async (): Promise<number> => (await outbox.stats()).pending
  await untilIdle(broker.mq, ['notifications'], { signal, elsewhere })
  expect(mail.sent()).toEqual([notification('ann@example.com', 'order-2')])
  mail.close()
})

test('the mail service accepts a message once per key', async () => {
  await using broker = await openTemporaryBroker()
  const mail = openMailService(broker.file('mail.db'))
  const message = notification('ann@example.com', 'order-1')
  mail.send(message, { idempotencyKey: 'a' })
  mail.send(message, { idempotencyKey: 'a' })
  mail.send(message, { idempotencyKey: 'b' })
  expect(mail.sent()).toEqual([message, message])
  mail.close()
})
