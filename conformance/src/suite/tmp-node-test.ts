import { describe, it } from 'node:test'
import { systemClock } from '@idemq/core'
import { memory, openUrl } from '@idemq/memory'
import { driverSuite } from '../index.ts'
driverSuite({ describe, it }, { name: 'memory', capabilities: memory().driver.capabilities, createAdapter: () => openUrl(new URL('memory:x'), { clock: systemClock }), scale: { leaseMs: 150, delayMs: 50 } })
