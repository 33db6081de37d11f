/** Push brokers: the endpoint takes a delivery only while somebody waits for it. */
import assert from 'node:assert/strict'
import type { CaseGroup } from '../case.ts'
import type { DriverBench } from './bench.ts'
import { type DriverHarness, noPush, push } from './harness.ts'

export const pushCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'push',
  cases: [
    {
      name: 'the receiver has a fetch, and it answers 503 unless a receive waits',
      gates: [push],
      async run(t) {
        assert.ok(t.harness.mount, 'a push adapter needs harness.mount, or nothing is ever delivered')
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        assert.ok(receiver.fetch, 'Receiver.fetch is missing')
        const request = new Request('http://localhost/', { method: 'POST', body: 'a delivery' })
        assert.equal((await receiver.fetch(request)).status, 503)
      },
    },
    {
      name: 'the receiver has no fetch: deliveries are pulled',
      gates: [noPush],
      async run(t) {
        const { driver, queue } = await t.start()
        assert.equal((await t.open(driver, queue)).fetch, undefined)
      },
    },
  ],
}
