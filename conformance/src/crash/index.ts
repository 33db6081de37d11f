export {
  type Broker,
  type BrokerServer,
  brokers,
  findBroker,
  type RunningBroker,
  type StartOptions,
} from './brokers.ts'
export { type CampaignOptions, type CampaignResult, type OutboxFigures, runCampaign } from './campaign.ts'
export type { Burst, ChildConfig } from './child-config.ts'
export type { Child, ChildExit } from './child-process.ts'
export { type Aim, type Control, controls, type Faults } from './controls.ts'
export { type Expectation, expectations } from './expectations.ts'
export { type Fault, faults } from './network.ts'
export { relayPlaces } from './relay-kills.ts'
export { jsonLineOf, reportOf } from './report.ts'
