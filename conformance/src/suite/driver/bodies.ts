/** Bodies are bytes: whatever they are, they arrive as they were sent. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { Outgoing } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { type DriverBench, message } from './bench.ts'
import { type DriverHarness, smallBodies } from './harness.ts'

/** Each breaks a transport that takes a body for text. */
const awkwardBodies: Readonly<Record<string, Uint8Array>> = {
  empty: new Uint8Array(0),
  'a single NUL': Uint8Array.of(0),
  'every byte value': Uint8Array.from({ length: 256 }, (_, index) => index),
  'a truncated UTF-8 sequence': Uint8Array.of(0x61, 0xe2, 0x82),
  'invalid UTF-8': Uint8Array.of(0xff, 0xfe, 0xc3, 0x28),
  'a byte order mark': Uint8Array.of(0xef, 0xbb, 0xbf, 0x7b, 0x7d),
  'characters that XML forbids': Buffer.from('\u0001\u000b\uffff]]><&'),
  'CR, LF and trailing spaces': Buffer.from('a\r\nb\rc\n  '),
  'emoji and surrogates': Buffer.from('🧾 naïve Ω 𝄞'),
  'what looks like JSON': Buffer.from('{"v":1,"dup":1,"dup":2,"n":1.0}'),
  'what looks like base64': Buffer.from('aGVsbG8='),
  'a view into a larger buffer': Buffer.from('xxinsidexx').subarray(2, 8),
  'random 64 KiB': randomBytes(65_536),
}

const hex = (bodies: Iterable<Uint8Array>): string[] =>
  [...bodies].map((body) => Buffer.from(body).toString('hex')).sort()

export const bodyCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'bodies',
  cases: [
    {
      name: 'bytes arrive as they were sent: empty, NUL, not UTF-8, what looks like text',
      async run(t) {
        const { driver, queue } = await t.start()
        const { maxBodyBytes } = t.capabilities
        const fitting = Object.entries(awkwardBodies).filter(([, body]) => body.byteLength <= maxBodyBytes)
        const receiver = await t.open(driver, queue)
        for (const [what, body] of fitting) {
          await t.send(driver, queue, [{ ...message(), body }])
          const delivery = await t.takeOne(receiver)
          assert.deepEqual(hex([delivery.body]), hex([body]), what)
          assert.ok(delivery.body instanceof Uint8Array, `${what}: not a Uint8Array`)
          await t.settle(receiver, [delivery])
        }
      },
    },
    {
      name: 'bytes of dead letters are shown as they were stored',
      async run(t) {
        const { driver, queue } = await t.start()
        const bodies = Object.values(awkwardBodies).filter(
          ({ byteLength }) => byteLength <= t.capabilities.maxBodyBytes,
        )
        await t.sendDead(
          driver,
          queue,
          bodies.map((body) => ({ ...message(), body })),
        )
        const shown: Uint8Array[] = []
        await driver.scanDead(
          queue,
          async ({ body }) => {
            shown.push(Uint8Array.from(body))
            return 'keep'
          },
          t.signal,
        )
        assert.deepEqual(hex(shown), hex(bodies))
      },
    },
    {
      name: 'a body of exactly maxBodyBytes is stored and delivered, alive or dead',
      gates: [smallBodies],
      async run(t) {
        const { driver, queue } = await t.start()
        const body = new Uint8Array(t.capabilities.maxBodyBytes).fill(0xa5)
        body[0] = 0
        body[body.length - 1] = 0xff
        const same = (other: Uint8Array): boolean => Buffer.compare(other, body) === 0
        await t.send(driver, queue, [{ ...message(), body }])
        const receiver = await t.open(driver, queue)
        const delivery = await t.takeOne(receiver)
        assert.ok(same(delivery.body), `${delivery.body.byteLength} bytes arrived and differ`)
        await t.settle(receiver, [delivery])
        await t.sendDead(driver, queue, [{ ...message(), body }])
        let shown = false
        await driver.scanDead(
          queue,
          async (letter) => {
            shown = same(letter.body)
            return 'remove'
          },
          t.signal,
        )
        assert.ok(shown, 'the dead letter of maxBodyBytes was not shown or differs')
      },
    },
    {
      name: 'a batch whose bodies are each within the limit is taken, however large it is in all',
      gates: [smallBodies],
      async run(t) {
        const { driver, queue } = await t.start()
        const { maxBodyBytes, maxBatch } = t.capabilities
        const bytes = Math.min(maxBodyBytes, 1024 * 1024)
        const batch = [1, 2, 3]
          .slice(0, maxBatch)
          .map((mark): Outgoing => ({ ...message(), body: new Uint8Array(bytes).fill(mark) }))
        await t.send(driver, queue, batch)
        const receiver = await t.open(driver, queue)
        const marks = (await t.take(receiver, batch.length)).map(({ body }) => [body.byteLength, body[0], body.at(-1)])
        assert.deepEqual(
          marks.sort(),
          batch.map((_, index) => [bytes, index + 1, index + 1]),
        )
      },
    },
  ],
}
