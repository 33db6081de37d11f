import { randomUUID } from 'node:crypto'
import { driverSuite } from '@idemq/conformance'
import { systemClock } from '@idemq/core'
import { describe, it } from 'vitest'
import { memory, openUrl } from './index.ts'

const url = new URL(`memory:conformance-${randomUUID()}`)

driverSuite(
  { describe, it },
  {
    name: 'memory',
    capabilities: memory().driver.capabilities,
    createAdapter: () => openUrl(url, { clock: systemClock }),
    scale: { leaseMs: 200, delayMs: 80 },
  },
)
