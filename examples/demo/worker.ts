/** One worker process of the demo: payments, inventory and notifications at once, told what to do by its parent. */
import { openConnection } from '../connection.ts'
import { handleReservations } from '../inventory/worker.ts'
import { openMailService } from '../notifications/mail-service.ts'
import { handleNotifications } from '../notifications/worker.ts'
import { paymentProvider } from '../payments/provider-client.ts'
import { handleCharges } from '../payments/worker.ts'
import { type FromWorker, reportToParent } from './report.ts'

const { mq, inbox, outbox, relay, close } = await openConnection()
const mail = openMailService(process.env.DEMO_MAIL_FILE!)

// Short leases, so that what a killed worker held is taken over within seconds: the demo kills one every second.
const leaseMs = 3_000
const worker = mq.worker({ inbox, concurrency: 8, leaseMs, claimLeaseMs: leaseMs })
handleCharges(worker, paymentProvider(process.env.DEMO_PROVIDER_URL!))
handleReservations(worker, outbox())
handleNotifications(worker, mail)

const endReport = reportToParent(mq)
await worker.start()
await relay({ leaseMs }).start()
process.send!({ type: 'ready' } satisfies FromWorker)

// A parent that goes away without a word takes its workers along.
process.on('disconnect', () => process.exit(1))
process.once('message', async () => {
  await close()
  mail.close()
  endReport()
  process.exit(0)
})
// Ctrl-C in a terminal reaches the whole group: the parent decides.
process.on('SIGINT', () => {})
