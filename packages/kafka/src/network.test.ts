/** A network that loses answers: nothing is lost with them, and what was written counts. */
import { bed } from '@idemq/conformance/bed'
import type { Delivery, IdemqError, Settled } from '@idemq/core'
import { afterAll, expect, it } from 'vitest'
import { message, newQueue, open, openReceiver, signal, texts } from '../test/server.ts'

const server = await bed('kafka')
const proxy = await server.proxy()
afterAll(() => server.stop())

/** Patient with sessions, impatient with answers. */
const options = { sessionTimeoutMs: 30_000, answerTimeoutMs: 1_000 } as const

it('an ack whose answer is lost is repeated until it is known, and never comes back', async () => {
  const adapter = open(proxy.url, options)
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await adapter.driver.send({ name: queue.name }, [message('one'), message('two')], signal)
  const receiver = await openReceiver(adapter, queue)
  const held: Delivery[] = []
  while (held.length < 2) held.push(...(await receiver.receive(2, 5_000, signal)))
  await proxy.loseAnswers()
  const acks = held.map((delivery) => ({ delivery, outcome: 'ack' as const }))
  const failed = await receiver.settle(acks, signal).catch((error: IdemqError) => error)
  expect(failed).toMatchObject({ retryable: true })
  await proxy.heal()
  const again = async (): Promise<Settled[] | undefined> => receiver.settle(acks, signal).catch(() => undefined)
  await expect.poll(again, { timeout: 20_000 }).toEqual([{ status: 'settled' }, { status: 'settled' }])
  expect(await receiver.settle(acks, signal)).toEqual([{ status: 'lost' }, { status: 'lost' }])
  await receiver.close()
  expect(await (await openReceiver(open(server.url), queue)).receive(2, 1_000, signal)).toEqual([])
})

it('a send whose answer is lost is unknown, is stored, and what is sent next is stored as well', async () => {
  const adapter = open(proxy.url, options)
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await adapter.driver.send({ name: queue.name }, [message('before')], signal)
  await proxy.loseAnswers()
  const sent = await adapter.driver.send({ name: queue.name }, [message('lost answer')], signal)
  expect(sent).toEqual([{ status: 'unknown' }])
  await proxy.heal()
  const stored = async (text: string): Promise<boolean> => {
    const [answer] = await adapter.driver.send({ name: queue.name }, [message(text)], signal).catch(() => [])
    return answer?.status === 'stored'
  }
  // As many and as large as the one before: a broker that took it for its repeat would not store it.
  await expect.poll(() => stored('next one now'), { timeout: 20_000 }).toBe(true)
  const receiver = await openReceiver(adapter, queue)
  const seen = new Set<string>()
  const look = async (): Promise<string[]> => {
    for (const text of texts(await receiver.receive(10, 500, signal))) seen.add(text)
    return [...seen].sort()
  }
  await expect.poll(look, { timeout: 20_000 }).toEqual(['before', 'lost answer', 'next one now'])
})
