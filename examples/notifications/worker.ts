/**
 * Sends notifications, and relays those that wait in the outbox.
 *
 * Run: node --conditions=idemq-source notifications/worker.ts [file of the mail service]
 */
import type { Worker } from '@idemq/core'
import { openConnection, storeOptions } from '../connection.ts'
import { stopOnSignal } from '../stop-on-signal.ts'
import { sendNotification } from './jobs.ts'
import { type MailService, openMailService } from './mail-service.ts'

/** One message for each type, recipient and business id. */
export function handleNotifications(worker: Worker, mail: MailService): void {
  worker.handle(sendNotification, (notification, job) =>
    job.step('send', (step) => mail.send(notification, { idempotencyKey: step.idempotencyKey })),
  )
}

if (import.meta.main) {
  const connection = await openConnection()
  const mail = openMailService(process.argv[2] ?? '.data/mail.db')
  const worker = connection.mq.worker({ ...storeOptions(connection), concurrency: 16 })
  handleNotifications(worker, mail)
  const relay = connection.mq.relay(connection.outbox ? { outbox: connection.outbox } : {})
  await worker.start()
  await relay.start()
  console.log('relaying and sending notifications; Ctrl-C finishes what is in hand and stops')
  stopOnSignal(async () => {
    await relay.stop()
    await worker.stop({ drainMs: 10_000 })
    mail.close()
    await connection.close()
  })
}
