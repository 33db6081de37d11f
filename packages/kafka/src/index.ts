export { type KafkaOptions, kafka, openUrl } from './options.ts'
export type { KafkaWarning, KafkaWarningCode } from './warning.ts'
