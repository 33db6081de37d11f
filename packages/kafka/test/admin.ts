import kafkajs, { type Admin, type Kafka } from 'kafkajs'
import { afterAll } from 'vitest'

/** A client beside the adapter's, as an operator has. */
export async function adminOf({
  host,
  port,
}: {
  readonly host: string
  readonly port: number
}): Promise<{ admin: Admin; native: Kafka }> {
  const native = new kafkajs.Kafka({ brokers: [`${host}:${port}`], logLevel: kafkajs.logLevel.NOTHING })
  const admin = native.admin()
  await admin.connect()
  afterAll(() => admin.disconnect())
  return { admin, native }
}
