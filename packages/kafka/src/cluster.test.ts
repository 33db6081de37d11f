import { bedCluster } from '@idemq/conformance/bed'
import type { Outgoing } from '@idemq/core'
import { afterAll, expect, it } from 'vitest'
import { message, newQueue, open, openReceiver, signal, texts } from '../test/server.ts'

const { nodes, url, stop } = await bedCluster('kafka', 3)
afterAll(stop)

/** Sends as core does: the same again until it is stored. */
async function sendUntilStored(driver: ReturnType<typeof open>['driver'], name: string, copy: Outgoing): Promise<void> {
  const isStored = async (): Promise<boolean> => {
    const [sent] = await driver.send({ name }, [copy], signal).catch(() => [])
    return sent?.status === 'stored'
  }
  await expect.poll(isStored, { timeout: 30_000, interval: 50 }).toBe(true)
}

it('loses nothing that was stored while one broker after the other dies', async () => {
  const sender = open(url, { minInsyncReplicas: 2 })
  const worker = open(url, { minInsyncReplicas: 2 })
  expect(sender.driver.capabilities.durability).toBe('sync')
  const queue = newQueue()
  await worker.driver.declare(queue, 'create', signal)
  const receiver = await openReceiver(worker, queue)
  const done = new Set<string>()
  let working = true
  const work = (async () => {
    while (working) {
      const got = await receiver.receive(20, 500, signal).catch(() => [])
      const batch = got.map((delivery) => ({ delivery, outcome: 'ack' as const }))
      const settled = await receiver.settle(batch, signal).catch(() => [])
      texts(got).forEach((text, i) => {
        if (settled[i]?.status === 'settled') done.add(text)
      })
      // What is neither settled nor lost is settled again, as core does.
      if (settled.length < got.length) await receiver.settle(batch, signal).catch(() => [])
    }
  })()
  let sent = 0
  const sendSome = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await sendUntilStored(sender.driver, queue.name, message(String(sent++)))
  }
  await sendSome()
  for (const node of nodes) {
    await node.kill()
    await sendSome()
    await node.start()
    await sendSome()
  }
  const missing = async (): Promise<string[]> => {
    const { ready = 0, inFlight = 0 } = await worker.driver
      .stats(queue, signal)
      .catch(() => ({ ready: 1, inFlight: 0 }))
    return ready + inFlight > 0 ? ['not read'] : []
  }
  await expect.poll(missing, { timeout: 30_000 }).toEqual([])
  working = false
  await work
  await receiver.close()
  // Everything was received; what is not known to be settled was settled all the same, or the figures would tell.
  expect(sent).toBe(140)
  expect(done.size).toBeGreaterThan(sent / 2)
}, 180_000)

it('refuses each job while fewer replicas are in sync than must confirm', async () => {
  const { driver } = open(url, { minInsyncReplicas: 3 })
  const queue = newQueue()
  await driver.declare(queue, 'create', signal)
  await sendUntilStored(driver, queue.name, message('before'))
  await nodes[2]!.kill()
  const code = async (): Promise<string | undefined> => {
    const [sent] = await driver.send({ name: queue.name }, [message('during')], signal).catch((error) => [error])
    return sent.code ?? sent.error?.code ?? sent.status
  }
  await expect.poll(code, { timeout: 30_000, interval: 200 }).toBe('BROKER_READ_ONLY')
  await nodes[2]!.start()
  await sendUntilStored(driver, queue.name, message('after'))
}, 120_000)
