/** Publishing: confirmed means stored, each message has its own fate, nothing is stored twice or swallowed. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { Sent } from '@idemq/core'
import { type CaseGroup, within } from '../case.ts'
import { abortedSignals, expectCode, expectRejection } from '../refusal.ts'
import { type DriverBench, longLeaseMs, message, messages, sortedTexts, statuses, text, texts } from './bench.ts'
import { type DriverHarness, dedupesSends, noSendDedupe, smallBodies } from './harness.ts'

export const sendCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'send',
  cases: [
    {
      name: 'each message of a full batch is stored, answered in order and delivered once',
      async run(t) {
        const { driver, queue } = await t.start()
        const count = Math.min(t.capabilities.maxBatch, 200)
        const batch = messages(count)
        const answers = await driver.send(queue, batch, t.signal)
        assert.deepEqual(
          statuses(answers),
          batch.map(() => 'stored'),
        )
        const receiver = await t.open(driver, queue, { maxUnsettled: count + 10 })
        assert.deepEqual(sortedTexts(await t.take(receiver, count)), sortedTexts(batch))
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [], 'one more than was sent')
      },
    },
    {
      name: 'a message above maxBodyBytes fails alone with BODY_TOO_LARGE',
      gates: [smallBodies],
      async run(t) {
        const { driver, queue } = await t.start()
        const tooLarge = message({ body: new Uint8Array(t.capabilities.maxBodyBytes + 1) })
        const batch = [message({ body: 'first' }), tooLarge, message({ body: 'last' })].slice(-t.capabilities.maxBatch)
        let answers: Sent[]
        try {
          answers = await driver.send(queue, batch, t.signal)
        } catch (error) {
          // Refusing the whole call is honest too, as long as the other messages go through when sent without it.
          expectCode('a batch with a body above maxBodyBytes', ['BODY_TOO_LARGE'], error)
          await t.send(
            driver,
            queue,
            batch.filter((each) => each !== tooLarge),
          )
          answers = batch.map(
            (each) => (each === tooLarge ? { status: 'failed', error } : { status: 'stored' }) as Sent,
          )
        }
        for (const [index, answer] of answers.entries()) {
          assert.equal(answer.status, batch[index] === tooLarge ? 'failed' : 'stored', `message ${index} of the batch`)
          if (answer.status === 'failed') expectCode('the message above maxBodyBytes', ['BODY_TOO_LARGE'], answer.error)
        }
        const others = batch.filter((each) => each !== tooLarge)
        const receiver = await t.open(driver, queue)
        assert.deepEqual(sortedTexts(await t.take(receiver, others.length)), sortedTexts(others))
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [], 'what failed was not stored')
      },
    },
    {
      name: 'a second send of a copyId that is ready counts as stored and changes nothing',
      gates: [dedupesSends],
      async run(t) {
        const { driver, queue } = await t.start()
        const copyId = `${randomUUID()}.0.1.0`
        await t.send(driver, queue, [message({ copyId, body: 'first' })])
        await t.send(await t.driver(), queue, [message({ copyId, body: 'second' })])
        await t.send(driver, queue, [message({ body: 'other' })])
        const receiver = await t.open(driver, queue)
        assert.deepEqual(sortedTexts(await t.take(receiver, 2)), ['first', 'other'])
        assert.deepEqual(texts(await receiver.receive(1, 0, t.signal)), [], 'the second send of a copyId was delivered')
      },
    },
    {
      name: 'a second send of a copyId that is delayed counts as stored and changes nothing',
      gates: [dedupesSends],
      async run(t) {
        const { driver, queue } = await t.start()
        const copyId = `${randomUUID()}.0.2.0`
        await t.send(driver, queue, [message({ copyId, body: 'delayed', delayMs: t.scale.delayMs })])
        await t.send(driver, queue, [message({ copyId, body: 'again' })])
        const receiver = await t.open(driver, queue)
        assert.equal(text(await t.takeOne(receiver)), 'delayed')
        await t.expectNothing(receiver, t.scale.delayMs, 'the second send of a copyId was delivered')
      },
    },
    {
      name: 'a second send of a copyId that is in flight counts as stored and is gone with its ack',
      gates: [dedupesSends],
      async run(t) {
        const { driver, queue } = await t.start()
        const copyId = `${randomUUID()}.0.1.0`
        await t.send(driver, queue, [message({ copyId })])
        const receiver = await t.open(driver, queue)
        const delivery = await t.takeOne(receiver)
        await t.send(driver, queue, [message({ copyId })])
        await t.settle(receiver, [delivery])
        await t.expectNothing(receiver, t.scale.delayMs, 'the second send of a copyId in flight was delivered')
      },
    },
    {
      name: 'a second send of a copyId counts as stored and loses neither the copy nor another',
      gates: [noSendDedupe],
      async run(t) {
        const { driver, queue } = await t.start()
        const copyId = `${randomUUID()}.0.1.0`
        await t.send(driver, queue, [message({ copyId, body: 'same' })])
        await t.send(driver, queue, [message({ copyId, body: 'same' })])
        await t.send(driver, queue, [message({ body: 'other' })])
        const receiver = await t.open(driver, queue)
        const seen = new Set<string>()
        while (seen.size < 2) seen.add(text(await t.takeOne(receiver)))
        assert.deepEqual([...seen].sort(), ['other', 'same'])
      },
    },
    {
      name: 'another copy of the same job is not swallowed',
      async run(t) {
        const { driver, queue } = await t.start()
        const first = message()
        const retry = { ...first, copyId: `${first.jobId}.0.2.0`, body: Buffer.from('retry') }
        const hop = { ...first, copyId: `${first.jobId}.0.2.1`, body: Buffer.from('hop') }
        await t.send(driver, queue, [first])
        await t.send(driver, queue, [retry])
        await t.send(driver, queue, [hop])
        const receiver = await t.open(driver, queue)
        assert.deepEqual(sortedTexts(await t.take(receiver, 3)), sortedTexts([first, retry, hop]))
      },
    },
    {
      name: 'sends at once from two connections are all stored, once each',
      async run(t) {
        const { driver, queue } = await t.start()
        const other = await t.driver()
        const all = messages(40)
        await Promise.all(all.map((one, index) => t.send(index % 2 ? driver : other, queue, [one])))
        const receiver = await t.open(driver, queue)
        assert.deepEqual(sortedTexts(await t.take(receiver, all.length)), sortedTexts(all))
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [], 'one more than was sent')
      },
    },
    {
      name: 'a send whose signal is already aborted ends at once: with its reason, ABORTED if none of ours, or an answer that holds',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        for (const { signal, code } of abortedSignals()) {
          const attempt = driver.send(queue, [message({ body: code })], signal)
          const ended = within(t.scale.toleranceMs, 'an aborted send to end', attempt)
          const answers = await ended.catch((error: unknown) => {
            expectCode('an aborted send', [code], error)
            return [] as Sent[]
          })
          if (answers[0]?.status !== 'stored') continue
          assert.equal(text(await t.takeOne(receiver)), code, "it was answered 'stored'")
        }
      },
    },
    {
      name: 'after close a send is refused with CLOSED, and closing again does nothing',
      async run(t) {
        const { driver, queue } = await t.start()
        await Promise.all([driver.close(), driver.close()])
        await driver.close()
        await expectRejection('send after close', ['CLOSED'], () => driver.send(queue, [message()], t.signal))
      },
    },
    {
      name: 'close while sends are under way loses none that was answered stored',
      async run(t) {
        const { driver, queue } = await t.start()
        const closing = await t.driver()
        const all = messages(30)
        const sends = all.map((one) => closing.send(queue, [one], t.signal).catch(() => [] as Sent[]))
        await closing.close()
        const answers = await Promise.all(sends)
        const confirmed = all.filter((_, index) => answers[index]?.[0]?.status === 'stored')
        const receiver = await t.open(driver, queue, { leaseMs: longLeaseMs })
        const found = new Set<string>()
        while (confirmed.some((one) => !found.has(text(one)))) found.add(text(await t.takeOne(receiver)))
      },
    },
  ],
}
