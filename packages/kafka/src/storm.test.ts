import { bed } from '@idemq/conformance/bed'
import type { Adapter, Delivery, Receiver } from '@idemq/core'
import { afterAll, expect, it } from 'vitest'
import { message, newQueue, open, openReceiver, signal, texts } from '../test/server.ts'

const server = await bed('kafka')
afterAll(() => server.stop())

/** Fixed, so that a run can be repeated. */
const seed = 20_261

interface Member {
  readonly adapter: Adapter
  readonly receiver: Receiver
  readonly inHand: Set<string>
  readonly lost: Set<Delivery>
  readonly working: Promise<void>
  leaving: boolean
}

it('members join and leave under load: nothing is lost, and nobody is given again what it is at work on', async () => {
  const partitions = 8
  const queue = newQueue()
  const first = open(server.url, { partitions })
  await first.driver.declare(queue, 'create', signal)
  const done = new Map<string, number>()
  const toItself: string[] = []
  const unreported: string[] = []
  const ends: string[] = []
  let random = seed
  const next = (below: number): number => {
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31
    return random % below
  }

  async function work(member: Member, delivery: Delivery): Promise<void> {
    const [text] = texts([delivery])
    await new Promise((resolve) => setTimeout(resolve, 5 + next(40)))
    const [answer] = await member.receiver.settle([{ delivery, outcome: 'ack' }], signal)
    member.inHand.delete(text!)
    ends.push(answer!.status)
    if (answer!.status === 'settled') done.set(text!, (done.get(text!) ?? 0) + 1)
    else if (!member.lost.has(delivery) && !member.leaving) unreported.push(text!)
  }

  async function join(): Promise<Member> {
    const adapter = open(server.url, { partitions })
    const lost = new Set<Delivery>()
    const receiver = await openReceiver(adapter, queue, {
      maxUnsettled: 20,
      onLost: (deliveries) => {
        for (const delivery of deliveries) lost.add(delivery)
      },
    })
    const member: Member = { adapter, receiver, lost, inHand: new Set(), working: run(), leaving: false }
    async function run(): Promise<void> {
      const jobs = new Set<Promise<void>>()
      await Promise.resolve()
      while (!member.leaving) {
        for (const delivery of await receiver.receive(20, 200, signal)) {
          const [text] = texts([delivery])
          if (member.inHand.has(text!)) toItself.push(text!)
          member.inHand.add(text!)
          const job = work(member, delivery).finally(() => jobs.delete(job))
          jobs.add(job)
        }
      }
      await receiver.stop()
      await Promise.all(jobs)
      await receiver.close()
    }
    return member
  }

  const members = [await join()]
  let sent = 0
  let sending = true
  const producer = (async () => {
    while (sending) {
      const batch = Array.from({ length: 20 }, () => message(String(sent++)))
      const answers = await first.driver.send({ name: queue.name }, batch, signal)
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(['stored']))
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })()
  for (let change = 0; change < 60; change++) {
    if (members.length === 1 || (members.length < 8 && next(2) === 0)) members.push(await join())
    else {
      const [gone] = members.splice(next(members.length), 1)
      gone!.leaving = true
      await gone!.working
    }
  }
  sending = false
  await producer
  await expect.poll(() => done.size, { timeout: 30_000 }).toBe(sent)
  for (const member of members) member.leaving = true
  await Promise.all(members.map(({ working }) => working))
  const again = [...done.values()].filter((times) => times > 1).length
  console.log(
    `seed ${seed}: ${sent} sent, ${ends.length} ended, ${ends.filter((end) => end === 'lost').length} lost, ${again} done twice`,
  )
  expect({ toItself, unreported }).toEqual({ toItself: [], unreported: [] })
}, 240_000)
