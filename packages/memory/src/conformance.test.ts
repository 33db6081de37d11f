import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { driverSuite, storeSuite } from '@idemq/conformance'
import { systemClock } from '@idemq/core'
import { describe, it } from 'vitest'
import { memory, openUrl } from './index.ts'

const url = new URL(`memory:conformance-${randomUUID()}`)

driverSuite(
  { describe, it: it.concurrent },
  {
    name: 'memory',
    capabilities: memory().driver.capabilities,
    createAdapter: () => openUrl(url, { clock: systemClock }),
    scale: { leaseMs: 200, delayMs: 80 },
  },
)

storeSuite(
  { describe, it: it.concurrent },
  {
    name: 'memory',
    capabilities: { durability: 'memory', transactions: false, expiresItself: false },
    async createStore() {
      const { inbox } = await openUrl(url, { clock: systemClock })
      assert.ok(inbox)
      return inbox
    },
    scale: { leaseMs: 100, delayMs: 50 },
  },
)
