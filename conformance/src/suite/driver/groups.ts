/** Groups of consumers: each gets every message, and what is for one is for it alone. */
import assert from 'node:assert/strict'
import type { QueueRef } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { type DriverBench, message, messages, sortedTexts, text } from './bench.ts'
import { type DriverHarness, groups, noGroups } from './harness.ts'

async function twoGroups(t: DriverBench): Promise<{ email: QueueRef; audit: QueueRef }> {
  const { name } = t.queue()
  const driver = await t.driver()
  const email = await t.declared(driver, { name, group: 'email' })
  const audit = await t.declared(driver, { name, group: 'audit' })
  return { email, audit }
}

export const groupCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'groups',
  cases: [
    {
      name: 'every group gets every message, and an ack counts for its own group only',
      gates: [groups],
      async run(t) {
        const driver = await t.driver()
        const { email, audit } = await twoGroups(t)
        await t.send(driver, { name: email.name }, messages(3))
        const one = await t.open(driver, email)
        await t.settle(one, await t.take(one, 3))
        const two = await t.open(await t.driver(), audit)
        assert.deepEqual(sortedTexts(await t.take(two, 3)), sortedTexts(messages(3)))
        await t.expectNothing(one, t.scale.delayMs, 'a group got a message twice')
      },
    },
    {
      name: 'what is sent to one group reaches no other',
      gates: [groups],
      async run(t) {
        const driver = await t.driver()
        const { email, audit } = await twoGroups(t)
        const delayMs = t.scale.delayMs
        await t.send(driver, email, [message({ body: 'email' })])
        await t.send(driver, email, [message({ body: 'email, later', delayMs })])
        const [one, two] = [await t.open(driver, email), await t.open(driver, audit)]
        assert.deepEqual(sortedTexts(await t.take(one, 2)), ['email', 'email, later'])
        await t.expectNothing(two, delayMs, "another group's message was delivered")
        await t.send(driver, { name: audit.name }, [message({ body: 'both' })])
        assert.equal(text(await t.takeOne(two)), 'both')
        assert.equal(text(await t.takeOne(one)), 'both')
      },
    },
    {
      name: 'dead letters belong to one group',
      gates: [groups],
      async run(t) {
        const driver = await t.driver()
        const { email, audit } = await twoGroups(t)
        await t.sendDead(driver, email, [message({ body: 'email only' })])
        assert.deepEqual(
          (await t.deadLetters(driver, email)).map(({ body }) => body),
          ['email only'],
        )
        assert.deepEqual(await t.deadLetters(driver, audit), [])
      },
    },
    {
      name: 'the group of a target is ignored: there is only one',
      gates: [noGroups],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, { name: queue.name, group: 'elsewhere' }, [message({ body: 'here' })])
        await t.send(driver, { name: queue.name }, [message({ body: 'and here' })])
        const receiver = await t.open(driver, queue)
        assert.deepEqual(sortedTexts(await t.take(receiver, 2)), ['and here', 'here'])
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [])
      },
    },
  ],
}
