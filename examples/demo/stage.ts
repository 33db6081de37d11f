/** Everything the acts of the demo play with. */
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Outbox, SqlTransaction } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { type Order, type OrderLine, readOrders } from '../data/orders.ts'
import { initialStock, prepareInventory } from '../inventory/database.ts'
import { openMailService } from '../notifications/mail-service.ts'
import { type Crew, createCrew, forkChild } from './crew.ts'
import type { Run, Sources } from './facts.ts'
import type { FromWorker } from './report.ts'
import { RetryBursts } from './retry-bursts.ts'
import type { Screen } from './screen.ts'

export interface Stage extends Sources {
  readonly screen: Screen
  readonly run: Run
  readonly refused: readonly Extract<OrderLine, { status: 'refused' }>[]
  readonly crew: Crew
  readonly outbox: Outbox<SqlTransaction>
  /** What the workers told so far. */
  readonly told: { duplicates: number; retries: number }
  /** Aborts when the demo cannot go on: out of time, or a process ended that nobody killed. */
  readonly signal: AbortSignal
  /** Asks the provider for something. */
  admin(path: string, body?: object): Promise<unknown>
  /** Lets the workers finish what is in hand and closes what this process opened. */
  leave(): Promise<void>
}

export interface StageOptions {
  readonly screen: Screen
  /** For the files of this run. */
  readonly directory: string
  readonly seed: number
  readonly workers: number
  readonly longestRunMs: number
}

/** Reads the orders, starts the provider and the workers, puts the stock on the shelves. */
export async function setStage(options: StageOptions): Promise<Stage> {
  const { screen, directory, seed } = options
  // On a broker of your own, other runs have left their keys: this one's orders and SKUs get names of their own.
  const prefix = process.env.IDEMQ_URL ? `${randomUUID().slice(0, 8)}-` : ''
  process.env.IDEMQ_DATA = directory

  const orders: Order[] = []
  const refused: Extract<OrderLine, { status: 'refused' }>[] = []
  for await (const line of readOrders()) {
    if (line.status === 'refused') refused.push(line)
    else orders.push({ ...line.order, orderId: prefix + line.order.orderId, sku: prefix + line.order.sku })
  }
  const stock = Object.fromEntries(Object.entries(initialStock()).map(([sku, pieces]) => [prefix + sku, pieces]))

  const connection = await openConnection()
  await prepareInventory(connection.inbox, stock)
  const mailFile = join(directory, 'mail.db')
  const mail = openMailService(mailFile)

  const failure = new AbortController()
  const { signal } = failure
  const outOfTime = new Error(`the work was not done within ${options.longestRunMs / 1_000} s`)
  setTimeout(() => failure.abort(outOfTime), options.longestRunMs).unref()

  const provider = await startProvider(join(directory, 'provider-ledger.db'), seed)
  provider.child.once('exit', () => failure.abort(new Error('the payment provider ended by itself')))
  const providerUrl = provider.url
  const told = { duplicates: 0, retries: 0 }
  const bursts = new RetryBursts()
  const sayBurst = (retries: number): void => {
    const burst = bursts.add(retries, performance.now())
    if (!burst) return
    const seconds = (burst.durationMs / 1_000).toFixed(1)
    screen.event(`retry burst: ${burst.retries} jobs failed within ${seconds} s and were put back, each with its delay`)
  }
  const burstTimer = setInterval(() => sayBurst(0), 250)
  const crew = createCrew({
    size: options.workers,
    env: { ...process.env, DEMO_PROVIDER_URL: providerUrl, DEMO_MAIL_FILE: mailFile },
    onMessage(member, message) {
      if (message.type === 'circuit') screen.event(circuitLine(member.number, message))
      if (message.type !== 'tally') return
      told.duplicates += message.deduplicated
      told.retries += message.retries
      sayBurst(message.retries)
    },
    onUnexpectedExit: ({ number, pid }, how) =>
      failure.abort(new Error(`worker ${number} (pid ${pid}) ended by itself: ${how}`)),
  })
  await crew.start(signal)

  return {
    screen,
    run: { prefix, orders, stock },
    refused,
    crew,
    told,
    signal,
    mq: connection.mq,
    inbox: connection.inbox,
    outbox: connection.outbox(),
    mail,
    providerUrl,
    async admin(path, body) {
      const response = await fetch(`${providerUrl}/admin/${path}`, {
        method: body ? 'POST' : 'GET',
        ...(body && { body: JSON.stringify(body) }),
      })
      if (!response.ok) throw new Error(`the provider answered ${response.status} to ${path}`)
      return response.status === 204 ? undefined : response.json()
    },
    async leave() {
      await crew.stop(signal)
      clearInterval(burstTimer)
      mail.close()
      await connection.close()
      signal.throwIfAborted()
    },
  }
}

function circuitLine(worker: number, { circuit, state }: Extract<FromWorker, { type: 'circuit' }>): string {
  switch (state) {
    case 'open':
      return `circuit open: worker ${worker} stops calling the ${circuit} and takes no more payments`
    case 'half_open':
      return `circuit half open: worker ${worker} tries one payment`
    case 'closed':
      return `circuit closed: the ${circuit} answers, worker ${worker} takes payments again`
  }
}

/** Starts the provider as a process of its own, on a bad day. */
async function startProvider(ledgerPath: string, seed: number): Promise<{ url: string; child: ChildProcess }> {
  const file = fileURLToPath(new URL('../payments/provider.ts', import.meta.url))
  const child = forkChild(file, ['--bad-day', '--seed', String(seed), '--ledger', ledgerPath], process.env)
  for await (const url of createInterface({ input: child.stdout! })) return { url, child }
  throw new Error('the payment provider did not start')
}
