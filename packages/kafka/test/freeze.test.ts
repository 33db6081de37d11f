/** A worker that stood still past its session neither settles nor keeps what has a new owner. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { bed } from '@idemq/conformance/bed'
import type { Delivery } from '@idemq/core'
import { afterAll, expect, it, onTestFinished } from 'vitest'
import { message, newQueue, open, openReceiver, signal, texts } from './server.ts'

const server = await bed('kafka')
afterAll(() => server.stop())

it('SIGSTOP past the session, SIGCONT: ack, extend and release are all lost, and reported', async () => {
  const adapter = open(server.url)
  const { driver } = adapter
  const queue = newQueue()
  await driver.declare(queue, 'create', signal)
  await driver.send({ name: queue.name }, [message('one'), message('two')], signal)
  const frozen = fork(join(import.meta.dirname, 'frozen-worker.ts'), [server.url, queue.name])
  onTestFinished(() => void frozen.kill('SIGKILL'))
  expect(await once(frozen, 'message')).toContain(2)
  frozen.kill('SIGSTOP')

  const receiver = await openReceiver(adapter, queue)
  const taken: Delivery[] = []
  while (taken.length < 2) taken.push(...(await receiver.receive(2, 10_000, signal)))
  expect(texts(taken).sort()).toEqual(['one', 'two'])
  expect(taken.map(({ priorDeliveries }) => priorDeliveries)).toEqual([1, 1])
  frozen.kill('SIGCONT')
  frozen.send('go on')
  const [said] = await once(frozen, 'message')
  expect(said).toEqual({ isHeld: false, answers: ['lost', 'lost', 'lost'], lostCount: 2 })

  expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 2 })
  const acks = taken.map((delivery) => ({ delivery, outcome: 'ack' as const }))
  expect(await receiver.settle(acks, signal)).toEqual([{ status: 'settled' }, { status: 'settled' }])
  expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 0 })
})
