export type KafkaWarningCode = 'IDEMQ_KAFKA_FEW_PARTITIONS' | 'IDEMQ_KAFKA_DELETED'

/** What weakens the promises, or wastes a worker. */
export interface KafkaWarning {
  readonly code: KafkaWarningCode
  readonly message: string
}
