import { connect } from '../../../packages/core/src/index.ts'
import { memory } from '../../../packages/memory/src/index.ts'
import { type Charge, chargeBatches, enqueueAll, unkeyedCharge } from './workload.ts'

/** What a consumer needs of a body. */
export interface Body {
  readonly payload: Charge
}

/** The bodies that core sends for the jobs from 0 to `jobs`, in order: the same on every broker. */
export async function encodedBodies(jobs: number): Promise<Buffer[]> {
  const { driver } = memory()
  const mq = await connect({ driver })
  await enqueueAll(mq, chargeBatches(0, jobs), unkeyedCharge)
  const { signal } = new AbortController()
  const queue = { name: unkeyedCharge.queue, group: 'default' }
  await driver.declare(queue, 'create', signal)
  const receiver = await driver.open(queue, { maxUnsettled: jobs, leaseMs: 3_600_000, onLost: () => {} }, signal)
  const bodies: Buffer[] = []
  while (bodies.length < jobs) {
    const deliveries = await receiver.receive(jobs - bodies.length, 0, signal)
    bodies.push(...deliveries.map(({ body }) => Buffer.from(body)))
  }
  await mq.close()
  return bodies
}

export function decode(body: Buffer): Body {
  return JSON.parse(body.toString())
}
