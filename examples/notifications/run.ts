/**
 * The notifications example in one go: relays what the inventory example left in the outbox, adds the same messages for
 * three customers ten times over, sends, and says what the mail service got. Run it again: nobody is told twice.
 *
 * Run: node --conditions=idemq-source notifications/run.ts
 */
import { openConnection } from '../connection.ts'
import { untilIdle } from '../until-idle.ts'
import { sendNotification } from './jobs.ts'
import { openMailService } from './mail-service.ts'
import { handleNotifications } from './worker.ts'

const connection = await openConnection()
const { mq, inbox } = connection
const outbox = connection.outbox()
const mail = openMailService('.data/mail.db')
let duplicates = 0
mq.on('deduplicated', () => void duplicates++)

console.log(`${(await outbox.stats()).pending} notifications wait in the outbox`)
const customers = ['ann', 'bob', 'eve']
await mq.enqueueMany(
  sendNotification,
  Array.from({ length: 30 }, (_, n) => ({
    type: 'order-reserved' as const,
    recipient: `${customers[n % customers.length]}@example.com`,
    businessId: 'order-of-a-friend',
  })),
)
console.log(`30 notifications enqueued for ${customers.length} customers`)

const worker = mq.worker({ inbox, concurrency: 16 })
handleNotifications(worker, mail)
await worker.start()
await connection.relay().start()
const elsewhere = async (): Promise<number> => (await outbox.stats()).pending
await untilIdle(mq, ['notifications'], { elsewhere, signal: AbortSignal.timeout(120_000) })

const sent = mail.sent()
const distinct = new Set(sent.map(({ type, recipient, businessId }) => `${type} ${recipient} ${businessId}`))
console.log(`${sent.length} messages sent so far, ${distinct.size} of them distinct; ${duplicates} duplicates caught`)
await connection.close()
mail.close()
