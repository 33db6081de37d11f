/**
 * Sends notifications.
 *
 * Run: node --conditions=idemq-source notifications/worker.ts [file of the mail service]
 */
import type { Worker } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { stopOnSignal } from '../stop-on-signal.ts'
import { sendNotification } from './jobs.ts'
import { type MailService, openMailService } from './mail-service.ts'

/** One message for each type, recipient and business id. */
export function handleNotifications(worker: Worker, mail: MailService): void {
  worker.handle(sendNotification, (notification, job) =>
    job.step('send', ({ idempotencyKey }) => mail.send(notification, { idempotencyKey })),
  )
}

if (import.meta.main) {
  const { mq, inbox, close } = await openConnection()
  const mail = openMailService(process.argv[2] ?? '.data/mail.db')
  const worker = mq.worker({ inbox, concurrency: 16 })
  handleNotifications(worker, mail)
  await worker.start()
  console.log('sending notifications; Ctrl-C finishes what is in hand and stops')
  stopOnSignal(async () => {
    await close()
    mail.close()
  })
}
