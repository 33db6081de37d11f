/**
 * One of the processes of processes.test.ts. Arguments: the URL, the schema, how many jobs there are in all, its name.
 * Sends its share, then works until it is killed, printing one line for each job it completed.
 */
import { postgres } from '../src/index.ts'

const [url = '', schema = '', total = '0', name = ''] = process.argv.slice(2)
const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }
const { driver, inbox } = postgres({ url, schema })
await driver.declare(queue, 'create', signal)
const share = Array.from({ length: Number(total) / 4 }, (_, i) => `${name}.${i}`)
for (let at = 0; at < share.length; at += 20) {
  const batch = share.slice(at, at + 20).map((id, i) => {
    return { copyId: id, jobId: id, body: Buffer.from(id), partitionKey: `key ${i % 3}`, ordered: i < 3, delayMs: 0 }
  })
  await driver.send(queue, batch, signal)
}
console.log('sent')
const receiver = await driver.open(queue, { maxUnsettled: 50, leaseMs: 2_000, onLost: () => {} }, signal)
for (;;) {
  const deliveries = await receiver.receive(10, 20, signal)
  if (deliveries.length === 0) continue
  const jobs = deliveries.map(({ body }) => Buffer.from(body).toString())
  const requests = jobs.map((key) => ({ scope: 's', key, fingerprint: 'f', jobId: key, replay: 0, attempt: 1 }))
  const answers = await inbox.claim(requests, { leaseMs: 1_000, retentionMs: 3_600_000 }, signal)
  const done = answers.flatMap((answer, i) =>
    answer.status === 'claimed' ? [{ ...requests[i]!, token: answer.token }] : [],
  )
  const ends = done.map(({ scope, key, token }) => {
    return { scope, key, token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
  })
  const held = await inbox.end(ends, 3_600_000, signal)
  // Before the ack: what was completed and not acked comes back, and must be answered 'completed'.
  for (const [i, { key }] of done.entries()) if (held[i] === 'held') process.stdout.write(`done ${key}\n`)
  const finished = deliveries.filter((_, i) => answers[i]!.status !== 'busy')
  await receiver.settle(
    finished.map((delivery) => ({ delivery, outcome: 'ack' })),
    signal,
  )
}
