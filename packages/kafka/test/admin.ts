import { type Admin, Kafka, logLevel } from 'kafkajs'
import { afterAll } from 'vitest'

/** A client beside the adapter's, as an operator has. */
export async function adminOf({
  host,
  port,
}: {
  readonly host: string
  readonly port: number
}): Promise<{ admin: Admin; native: Kafka }> {
  const native = new Kafka({ brokers: [`${host}:${port}`], logLevel: logLevel.NOTHING })
  const admin = native.admin()
  await admin.connect()
  afterAll(() => admin.disconnect())
  return { admin, native }
}
