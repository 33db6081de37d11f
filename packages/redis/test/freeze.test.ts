/** A worker that stood still past its lease neither steals nor removes what has a new owner. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { message, openReceiver, signal, testServer, texts } from './server.ts'

describe.each(['redis', 'valkey'] as const)('on %s', async (name) => {
  const { server, start } = await testServer(name)

  it('SIGSTOP past the lease, SIGCONT: extend, release, ack, renew and end are all lost', async () => {
    const { adapter, queue } = await start()
    const { driver, inbox } = adapter
    await driver.send(queue, [message('job')], signal)
    const frozen = fork(join(import.meta.dirname, 'frozen-worker.ts'), [server.url, queue.name])
    onTestFinished(() => void frozen.kill('SIGKILL'))
    const [taken] = await once(frozen, 'message')
    expect(taken).toEqual({ taken: true, claim: 'claimed' })
    frozen.kill('SIGSTOP')

    const receiver = await openReceiver(adapter, queue)
    const [delivery] = await receiver.receive(1, 10_000, signal)
    expect(texts([delivery!])).toEqual(['job'])
    expect(delivery!.priorDeliveries).toBe(1)
    const request = {
      scope: 'default/job',
      key: queue.name,
      fingerprint: 'f',
      jobId: queue.name,
      replay: 0,
      attempt: 1,
    }
    const times = { leaseMs: 30_000, retentionMs: 60_000 }
    const claim = await vi.waitUntil(
      async () => {
        const [answer] = await inbox.claim([request], times, signal)
        return answer?.status === 'claimed' && answer
      },
      { timeout: 10_000 },
    )
    frozen.kill('SIGCONT')
    frozen.send('go on')
    const [answers] = await once(frozen, 'message')
    expect(answers).toEqual(['lost', 'lost', 'lost', 'lost', 'lost'])

    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 1 })
    expect(await receiver.extend([delivery!], signal)).toEqual([{ status: 'settled' }])
    expect(await receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal)).toEqual([{ status: 'settled' }])
    const end = { scope: request.scope, key: request.key, token: claim.token, state: 'completed', floor: 1 } as const
    expect(await inbox.end([{ ...end, free: false, holdMs: 0 }], 60_000, signal)).toEqual(['held'])
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 0 })
  })
})
