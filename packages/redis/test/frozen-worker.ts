/**
 * A process that takes one message, says so, and is then frozen by the test. When it runs again it does what a worker
 * does that does not know what happened meanwhile, and reports how each was answered.
 */
import { redis } from '../src/options.ts'
import { openReceiver, signal } from './receiver.ts'

const [url, name] = process.argv.slice(2) as [string, string]
const adapter = redis({ url, onWarning: () => {} })
const queue = { name, group: 'default' }
const request = { scope: 'default/job', key: name, fingerprint: 'f', jobId: name, replay: 0, attempt: 1 }

const receiver = await openReceiver(adapter, queue, { leaseMs: 500 })
const [delivery] = await receiver.receive(1, 10_000, signal)
const [claim] = await adapter.inbox.claim([request], { leaseMs: 500, retentionMs: 60_000 }, signal)
process.send?.({ taken: delivery !== undefined, claim: claim?.status })

process.once('message', async () => {
  if (!delivery || claim?.status !== 'claimed') throw new Error('it had taken nothing')
  const ref = { scope: request.scope, key: request.key, token: claim.token }
  const extended = await receiver.extend([delivery], signal)
  const released = await receiver.settle([{ delivery, outcome: 'release' }], signal)
  const acked = await receiver.settle([{ delivery, outcome: 'ack' }], signal)
  const renewed = await adapter.inbox.renew([ref], 500, signal)
  const ended = await adapter.inbox.end(
    [{ ...ref, state: 'completed', floor: 1, free: false, holdMs: 0 }],
    60_000,
    signal,
  )
  await receiver.close()
  await adapter.driver.close()
  await adapter.inbox.close()
  const answers = [...extended, ...released, ...acked].map(({ status }) => status)
  process.send?.([...answers, ...renewed, ...ended])
  process.disconnect()
})
