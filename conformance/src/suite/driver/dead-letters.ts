/** Dead letters: kept whole however often they are looked at, shown once, removed only when somebody says so. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { DeadLetterRecord, Driver, QueueRef, Visit } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { type DriverBench, message, messages, sortedTexts, text } from './bench.ts'
import { type DriverHarness, dedupesSends, orderedScan } from './harness.ts'

/** Visits each letter with what `decide` says of its text; returns the texts in the order shown. */
async function scan(
  t: DriverBench,
  driver: Driver,
  queue: QueueRef,
  decide: (body: string, letter: DeadLetterRecord) => Visit | Promise<Visit>,
): Promise<{ shown: string[]; complete: boolean }> {
  const shown: string[] = []
  const { complete } = await driver.scanDead(
    queue,
    async (letter) => {
      shown.push(text(letter))
      return decide(text(letter), letter)
    },
    t.signal,
  )
  return { shown, complete }
}

const bodies = (letters: readonly { readonly body: string }[]): string[] => letters.map(({ body }) => body).sort()

export const deadLetterCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'dead letters',
  cases: [
    {
      name: 'a scan of an empty queue shows nothing and is complete',
      async run(t) {
        const { driver, queue } = await t.start()
        assert.deepEqual(await scan(t, driver, queue, () => 'keep'), { shown: [], complete: true })
      },
    },
    {
      name: 'every letter is shown once, across the pages a broker reads in',
      async run(t) {
        const { driver, queue } = await t.start()
        const letters = messages(Math.min(t.capabilities.maxBatch, 50) * 2 + 3)
        await t.sendDead(driver, queue, letters)
        const { shown, complete } = await scan(t, await t.driver(), queue, () => 'keep')
        assert.deepEqual(shown.sort(), sortedTexts(letters))
        assert.equal(complete, true)
      },
    },
    {
      name: 'letters are shown oldest first',
      gates: [orderedScan],
      async run(t) {
        const { driver, queue } = await t.start()
        const letters = messages(12)
        for (const letter of letters) await t.sendDead(driver, queue, [letter])
        const { shown } = await scan(t, driver, queue, () => 'keep')
        assert.deepEqual(shown, letters.map(text))
      },
    },
    {
      name: 'a second sendDead of a copyId counts as stored and adds nothing',
      gates: [dedupesSends],
      async run(t) {
        const { driver, queue } = await t.start()
        const copyId = `${randomUUID()}.0.5.0`
        await t.sendDead(driver, queue, [message({ copyId, body: 'once' })])
        await t.sendDead(await t.driver(), queue, [message({ copyId, body: 'once' })])
        assert.deepEqual(bodies(await t.deadLetters(driver, queue)), ['once'])
      },
    },
    {
      name: "'keep' keeps a letter, with its id and bytes, through a hundred looks",
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, messages(2))
        const byBody = (one: { body: string }, other: { body: string }): number => one.body.localeCompare(other.body)
        const first = (await t.deadLetters(driver, queue)).sort(byBody)
        assert.equal(new Set(first.map(({ id }) => id)).size, 2, 'two letters share an id')
        for (let look = 2; look <= 100; look++) {
          assert.deepEqual((await t.deadLetters(driver, queue)).sort(byBody), first, `look ${look}`)
        }
      },
    },
    {
      name: "'remove' deletes what was shown and nothing else, across pages",
      async run(t) {
        const { driver, queue } = await t.start()
        const letters = messages(Math.min(t.capabilities.maxBatch, 50) * 2 + 3)
        await t.sendDead(driver, queue, letters)
        const odd = (body: string): boolean => Number(body.split(' ')[1]) % 2 === 1
        const { shown, complete } = await scan(t, driver, queue, (body) => (odd(body) ? 'remove' : 'keep'))
        assert.deepEqual(shown.sort(), sortedTexts(letters))
        assert.equal(complete, true)
        const left = await t.deadLetters(await t.driver(), queue)
        assert.deepEqual(
          bodies(left),
          sortedTexts(letters).filter((body) => !odd(body)),
        )
      },
    },
    {
      name: "'stop' keeps its letter, shows no more and is not complete",
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, messages(6))
        let left = 3
        const { shown, complete } = await scan(t, driver, queue, () => (--left === 0 ? 'stop' : 'keep'))
        assert.equal(shown.length, 3, 'letters shown')
        assert.equal(complete, false)
        assert.deepEqual(bodies(await t.deadLetters(driver, queue)), sortedTexts(messages(6)))
      },
    },
    {
      name: "'remove' takes effect only after the visit resolved",
      gates: [orderedScan],
      async run(t) {
        const { driver, queue } = await t.start()
        const other = await t.driver()
        await t.sendDead(driver, queue, [message({ body: 'still here' })])
        await scan(t, driver, queue, async (): Promise<Visit> => {
          assert.deepEqual(bodies(await t.deadLetters(other, queue)), ['still here'], 'during the visit')
          return 'remove'
        })
        assert.deepEqual(await t.deadLetters(other, queue), [])
      },
    },
    {
      name: 'a visit that throws ends the scan with what it threw and removes nothing it was shown then',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, messages(3))
        const thrown = new Error('the replay failed')
        await assert.rejects(
          scan(t, driver, queue, () => {
            throw thrown
          }),
          (error) => error === thrown,
        )
        assert.deepEqual(bodies(await t.deadLetters(driver, queue)), sortedTexts(messages(3)))
      },
    },
    {
      name: 'an aborted scan ends after the visit under way, incomplete, and loses nothing',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, messages(5))
        const abort = new AbortController()
        let visits = 0
        const visit = async (): Promise<Visit> => {
          visits++
          abort.abort()
          return 'keep'
        }
        assert.deepEqual(await driver.scanDead(queue, visit, abort.signal), { complete: false })
        assert.equal(visits, 1, 'visits of a scan that was aborted during the first')
        assert.deepEqual(bodies(await t.deadLetters(driver, queue)), sortedTexts(messages(5)))
      },
    },
    {
      name: "a letter is removed where its visit says 'remove', also if the scan was aborted during that visit",
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, messages(3))
        const abort = new AbortController()
        const removed: string[] = []
        const visit = async ({ body }: { readonly body: Uint8Array }): Promise<Visit> => {
          removed.push(Buffer.from(body).toString())
          abort.abort()
          return 'remove'
        }
        assert.deepEqual(await driver.scanDead(queue, visit, abort.signal), { complete: false })
        assert.equal(removed.length, 1, 'visits of a scan that was aborted during the first')
        const left = sortedTexts(messages(3)).filter((body) => body !== removed[0])
        assert.deepEqual(bodies(await t.deadLetters(driver, queue)), left)
      },
    },
    {
      name: 'two scans at once lose nothing: a letter that neither removes is still there',
      async run(t) {
        const [one, two] = [await t.driver(), await t.driver()]
        const queue = await t.declared(one)
        await t.sendDead(one, queue, messages(20))
        const keep = (body: string): boolean => body.endsWith('7')
        const decide = (body: string): Visit => (keep(body) ? 'keep' : 'remove')
        await Promise.all([scan(t, one, queue, decide), scan(t, two, queue, decide)])
        // Where looking is holding, each scan may have missed what the other held: a last one sees all.
        await scan(t, one, queue, decide)
        assert.deepEqual(bodies(await t.deadLetters(one, queue)), sortedTexts(messages(20)).filter(keep))
      },
    },
    {
      name: 'dead letters belong to one queue',
      async run(t) {
        const driver = await t.driver()
        const [one, two] = [await t.declared(driver), await t.declared(driver)]
        await t.sendDead(driver, one, [message({ body: 'of one' })])
        assert.deepEqual(await t.deadLetters(driver, two), [])
        assert.deepEqual(bodies(await t.deadLetters(driver, one)), ['of one'])
      },
    },
  ],
}
