/**
 * A process that takes two messages, says so, and is then frozen by the test. When it runs again it does what a worker
 * does that does not know what happened meanwhile, and reports how each was answered.
 */
import type { Delivery } from '@idemq/core'
import { kafka } from '../src/options.ts'

const [url, name] = process.argv.slice(2) as [string, string]
const { driver } = kafka({ url, partitions: 2, sessionTimeoutMs: 2_000, onWarning: () => {} })
const { signal } = new AbortController()
let lostCount = 0
const onLost = (deliveries: readonly unknown[]): void => {
  lostCount += deliveries.length
}
const receiver = await driver.open({ name, group: 'default' }, { maxUnsettled: 10, leaseMs: 30_000, onLost }, signal)
const taken: Delivery[] = []
while (taken.length < 2) taken.push(...(await receiver.receive(2, 10_000, signal)))
process.send?.(taken.length)

process.once('message', async () => {
  const [first, second] = taken as [Delivery, Delivery]
  const isHeld = first.holdUntilMs > performance.now()
  const acked = await receiver.settle([{ delivery: first, outcome: 'ack' }], signal)
  const extended = await receiver.extend([second], signal)
  const released = await receiver.settle([{ delivery: second, outcome: 'release' }], signal)
  await driver.close()
  const answers = [...acked, ...extended, ...released].map(({ status }) => status)
  process.send?.({ isHeld, answers, lostCount })
  process.disconnect()
})
