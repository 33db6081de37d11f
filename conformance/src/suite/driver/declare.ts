/** Setting up: the manifest, queues that exist, queues that do not, names. */
import assert from 'node:assert/strict'
import { IdemqError } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { expectCode, expectRejection } from '../refusal.ts'
import { type DriverBench, message, sortedTexts, text } from './bench.ts'
import { type DriverHarness, groups, mismatches } from './harness.ts'

export const declareCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'set-up',
  cases: [
    {
      name: 'the driver has the manifest that the harness states, and its numbers make sense',
      async run(t) {
        const { capabilities } = await t.driver()
        assert.deepEqual(capabilities, t.harness.capabilities)
        const { maxBodyBytes, maxBatch, delayGranularityMs } = capabilities
        assert.ok(maxBodyBytes > 2 * 16 * 1024, `maxBodyBytes ${maxBodyBytes} leaves no room beside the 16 KiB reserve`)
        assert.ok(Number.isInteger(maxBatch) && maxBatch >= 1, `maxBatch ${maxBatch}`)
        assert.ok(delayGranularityMs >= 0, `delayGranularityMs ${delayGranularityMs}`)
        for (const name of ['retentionMs', 'deadRetentionMs', 'maxDelayMs', 'maxHoldMs'] as const) {
          const value = capabilities[name]
          assert.ok(value === undefined || value > 0, `${name} is ${value}: leave it out to say unlimited`)
        }
        assert.deepEqual([...new Set(capabilities.stats)], [...capabilities.stats], 'stats names a field twice')
      },
    },
    {
      name: 'declare creates what is missing and is idempotent, also from two connections at once',
      async run(t) {
        const [one, two] = [await t.driver(), await t.driver()]
        const queue = t.queue()
        await Promise.all([one, two, one, two].map((driver) => driver.declare(queue, 'create', t.signal)))
        await t.send(one, queue, [message({ body: 'kept' })])
        await two.declare(queue, 'create', t.signal)
        const receiver = await t.open(two, queue)
        assert.equal(text(await t.takeOne(receiver)), 'kept', 'declaring again keeps what is queued')
      },
    },
    {
      name: "declare 'check' refuses a missing queue with QUEUE_MISSING and creates nothing",
      async run(t) {
        const driver = await t.driver()
        const queue = t.queue()
        for (const target of [queue, { name: queue.name }, queue]) {
          await expectRejection('a check of a queue nobody created', ['QUEUE_MISSING'], () =>
            driver.declare(target, 'check', t.signal),
          )
        }
        await driver.declare(queue, 'create', t.signal)
        const other = await t.driver()
        await other.declare(queue, 'check', t.signal)
        await other.declare({ name: queue.name }, 'check', t.signal)
      },
    },
    {
      name: 'a producer that declares the queue alone loses nothing: the first consumer gets what was sent before it',
      async run(t) {
        const driver = await t.driver()
        const queue = t.queue()
        await driver.declare({ name: queue.name }, 'create', t.signal)
        await driver.declare({ name: queue.name }, 'check', t.signal)
        await t.send(driver, { name: queue.name }, [message({ body: 'early' })])
        const consumer = await t.driver()
        await t.declared(consumer, queue)
        assert.equal(text(await t.takeOne(await t.open(consumer, queue))), 'early')
      },
    },
    {
      name: "declare 'check' of a group nobody created is refused with QUEUE_MISSING",
      gates: [groups],
      async run(t) {
        const driver = await t.driver()
        const { name } = await t.declared(driver)
        await expectRejection('a check of a missing group', ['QUEUE_MISSING'], () =>
          driver.declare({ name, group: 'nobody' }, 'check', t.signal),
        )
      },
    },
    {
      name: 'declare refuses a queue with other settings with QUEUE_MISMATCH',
      gates: [mismatches],
      async run(t) {
        const driver = await t.driver()
        const queue = t.queue()
        await t.harness.createMismatch?.(queue)
        for (const mode of ['check', 'create'] as const) {
          await expectRejection(`declare '${mode}'`, ['QUEUE_MISMATCH'], () => driver.declare(queue, mode, t.signal))
        }
      },
    },
    {
      name: 'a send to a queue that does not exist is refused with QUEUE_MISSING or kept for it, never lost',
      async run(t) {
        const driver = await t.driver()
        const queue = t.queue()
        const sent = await driver.send(queue, [message({ body: 'early' })], t.signal).catch((error: unknown) => {
          expectCode('send to a missing queue', ['QUEUE_MISSING'], error)
        })
        if (!sent) return
        const [answer] = sent
        if (answer?.status === 'failed') {
          expectCode('send to a missing queue', ['QUEUE_MISSING'], answer.error)
          return
        }
        await t.declared(driver, queue)
        assert.equal(text(await t.takeOne(await t.open(driver, queue))), 'early', `it was answered '${answer?.status}'`)
      },
    },
    {
      name: 'opening, counting or scanning a queue that does not exist is QUEUE_MISSING or empty',
      async run(t) {
        const driver = await t.driver()
        const queue = t.queue()
        const missingOr = async <T>(work: () => Promise<T>, check: (value: T) => void): Promise<void> => {
          try {
            check(await work())
          } catch (error) {
            if (!(error instanceof IdemqError)) throw error
            expectCode('a queue nobody created', ['QUEUE_MISSING'], error)
          }
        }
        await missingOr(
          () => driver.stats(queue, t.signal),
          (stats) => assert.equal(Object.values(stats).filter((value) => value > 0).length, 0, JSON.stringify(stats)),
        )
        await missingOr(
          () => t.deadLetters(driver, queue),
          (letters) => assert.deepEqual(letters, []),
        )
        await missingOr(
          async () => (await t.open(driver, queue)).receive(1, 0, t.signal),
          (deliveries) => assert.deepEqual(deliveries, []),
        )
      },
    },
    {
      name: 'queues are apart whatever allowed characters their names differ in',
      async run(t) {
        const driver = await t.driver()
        const { name } = t.queue()
        const ends = ['.x', '_x', '-x', 'x', '.X', '.x.', `.${'y'.repeat(99 - name.length)}`]
        const queues = ends.map((end) => ({ name: name + end, group: 'default' }))
        for (const queue of queues) await t.declared(driver, queue)
        for (const queue of queues) await t.send(driver, queue, [message({ body: queue.name })])
        for (const queue of queues) {
          const receiver = await t.open(driver, queue)
          assert.deepEqual(sortedTexts(await t.take(receiver, 1)), [queue.name])
          assert.deepEqual(await receiver.receive(1, 0, t.signal), [], `more than its own in '${queue.name}'`)
        }
      },
    },
  ],
}
