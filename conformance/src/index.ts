// The suites. The crash harness and its oracle are apart, in `@idemq/conformance/crash`: they start processes.
export type { Runner } from './suite/case.ts'
export { type DriverHarness, driverSuite } from './suite/driver/index.ts'
export { type StoreHarness, storeSuite, type TestEffects } from './suite/inbox/index.ts'
export { type OutboxHarness, type OutboxUnderTest, outboxSuite } from './suite/outbox/index.ts'
export type { Scale } from './suite/wait.ts'
