/** The suite bites: it passes what is right, and each deliberately wrong driver or store fails the case meant for it. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type Adapter, type Driver, type InboxStore, type SqlTransaction, systemClock } from '@idemq/core'
import { memory, openUrl } from '@idemq/memory'
import { sqliteInbox } from '@idemq/sqlite'
import { afterAll, describe, it } from 'vitest'
import { memoryOutbox } from './broken/memory-outbox.ts'
import { poorBroker, poorCapabilities } from './broken/poor-driver.ts'
import { failuresOf, type Recorded, record } from './broken/recording-runner.ts'
import { weakenedDrivers, wrongAdapters } from './broken/wrong-adapters.ts'
import { wrongDrivers } from './broken/wrong-drivers.ts'
import { wrongInboxes, wrongTransactions } from './broken/wrong-inboxes.ts'
import { wrongOutboxes } from './broken/wrong-outboxes.ts'
import { type DriverHarness, driverSuite } from './driver/index.ts'
import { storeSuite } from './inbox/index.ts'
import { outboxSuite } from './outbox/index.ts'

/** Wrong ones fail by waiting for what never comes, hence at once: their cases share nothing. */
const scale = { leaseMs: 200, delayMs: 80, toleranceMs: 1_000, eventuallyMs: 2_000 }

const same = <T>(whole: T): T => whole
const rich = memory().driver.capabilities

/** Named memories live as long as the process, so each broker has a name of its own. */
function adapterCases(wrap: (adapter: Adapter) => Adapter, harness: Partial<DriverHarness> = {}): Recorded[] {
  const url = new URL(`memory:${randomUUID()}`)
  return record((runner) =>
    driverSuite(runner, {
      name: 'wrapped memory',
      capabilities: rich,
      createAdapter: async () => wrap(await openUrl(url, { clock: systemClock })),
      scale,
      ...harness,
    }),
  )
}

const driverCases = (wrap: (driver: Driver) => Driver): Recorded[] =>
  adapterCases((adapter) => ({ ...adapter, driver: wrap(adapter.driver) }))

function poorCases(wrapAgain: (driver: Driver) => Driver): Recorded[] {
  const { wrap, sever, restart } = poorBroker()
  return adapterCases((adapter) => ({ ...adapter, driver: wrapAgain(wrap(adapter.driver)) }), {
    capabilities: poorCapabilities(rich),
    sever: ({ driver }) => sever(driver),
    restart,
    kill: restart,
  })
}

function inboxCases(wrap: (store: InboxStore) => InboxStore): Recorded[] {
  const url = new URL(`memory:${randomUUID()}`)
  return record((runner) =>
    storeSuite(runner, {
      name: 'wrapped memory',
      capabilities: { durability: 'memory', transactions: false, expiresItself: false },
      async createStore() {
        const { inbox } = await openUrl(url, { clock: systemClock })
        assert.ok(inbox)
        return wrap(inbox)
      },
      scale,
    }),
  )
}

/** `caughtBy` exists, and `cases` fails it. */
async function expectCaught(cases: readonly Recorded[], caughtBy: string): Promise<void> {
  const meant = cases.filter(({ name }) => name === caughtBy)
  assert.equal(meant.length, 1, `there is no case '${caughtBy}'`)
  let failures = await failuresOf(meant)
  // A process that was too slow to see what came early has proved nothing: let it look again.
  for (let look = 2; look <= 3 && failures.length === 0; look++) failures = await failuresOf(meant)
  assert.deepEqual(
    failures.map(({ name }) => name),
    [caughtBy],
    'the suite passed what is wrong',
  )
}

const none = (failures: readonly { name: string; error: unknown }[]): void =>
  assert.deepEqual(
    failures.map(({ name, error }) => `${name}: ${String(error)}`),
    [],
  )

describe('the driver suite', () => {
  it('passes the right driver', async () => {
    none(await failuresOf(driverCases(same)))
  })
  for (const { fault, caughtBy, make } of wrongDrivers) {
    it.concurrent(`fails a driver where ${fault}`, () => expectCaught(driverCases(make()), caughtBy))
  }
  it('passes a right driver that can do little, and one that breaks and recovers', async () => {
    const cases = poorCases(same)
    none(await failuresOf(cases.filter(({ group }) => group !== 'faults')))
    // A restart is felt by every case on the broker.
    const faults = cases.filter(({ group }) => group === 'faults')
    assert.equal(faults.length, 5)
    none(await failuresOf(faults, 1))
  })
  for (const { fault, caughtBy, make } of weakenedDrivers) {
    it.concurrent(`fails a driver where ${fault}`, () => expectCaught(poorCases(make()), caughtBy))
  }
  for (const { fault, caughtBy, driver = same, inbox = same } of wrongAdapters) {
    const wrap = (adapter: Adapter): Adapter => ({ driver: driver(adapter.driver), inbox: inbox(adapter.inbox!) })
    it.concurrent(`fails an adapter where ${fault}`, () => expectCaught(adapterCases(wrap), caughtBy))
  }
})

describe('the inbox suite', () => {
  it('passes the right inbox', async () => {
    none(await failuresOf(inboxCases(same)))
  })
  for (const { fault, caughtBy, make } of wrongInboxes) {
    it.concurrent(`fails an inbox where ${fault}`, () => expectCaught(inboxCases(make()), caughtBy))
  }
})

describe('the inbox suite on transactions', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'idemq-broken-'))
  const path = join(directory, 'inbox.db')
  const effects = new DatabaseSync(path)
  effects.exec('PRAGMA busy_timeout = 1000; CREATE TABLE effect (id TEXT)')
  afterAll(async () => {
    effects.close()
    await rm(directory, { recursive: true })
  })
  const casesOf = (wrap: (store: InboxStore<SqlTransaction>) => InboxStore<SqlTransaction>): Recorded[] =>
    record((runner) =>
      storeSuite<SqlTransaction>(runner, {
        name: 'wrapped sqlite',
        capabilities: sqliteInbox(path).capabilities,
        createStore: async () => wrap(sqliteInbox(path)),
        effects: {
          write: async (tx, id) => void (await tx.query('INSERT INTO effect (id) VALUES ($1)', [id])),
          async count(id) {
            const row = effects.prepare('SELECT count(*) AS n FROM effect WHERE id = ?').get(id)
            return (row as { n: number }).n
          },
        },
        scale,
      }),
    )
  it('passes the right inbox', async () => {
    none(await failuresOf(casesOf(same)))
  })
  for (const { fault, caughtBy, make } of wrongTransactions) {
    it.concurrent(`fails an inbox where ${fault}`, () => expectCaught(casesOf(make()), caughtBy))
  }
})

describe('the outbox suite', () => {
  const casesOf = (wrap?: Parameters<typeof memoryOutbox>[0]): Recorded[] =>
    record((runner) =>
      outboxSuite(runner, {
        name: 'memory',
        create: async () => memoryOutbox(wrap),
        concurrentTransactions: true,
        scale,
      }),
    )
  it('passes the right outbox', async () => {
    none(await failuresOf(casesOf()))
  })
  for (const { fault, caughtBy, make } of wrongOutboxes) {
    it.concurrent(`fails an outbox where ${fault}`, () => expectCaught(casesOf(make()), caughtBy))
  }
})
