import { IdemqError } from './errors.ts'
import type { ClaimAnswer, InboxStore } from './store.ts'

const marker: unique symbol = Symbol('idemq.noInbox')

/**
 * The loud way to work without an inbox. Then attempts are counted by the broker, duplicates run again, and what cannot
 * hold is refused at start-up: business keys, `job.step`, `handleInTransaction`, and brokers that count nothing.
 */
export function noInbox(): InboxStore {
  const unsupported = (what: string) => (): never => {
    throw new IdemqError('UNSUPPORTED', `${what} needs an inbox: pass one to mq.worker({ inbox })`)
  }
  const store: InboxStore & { [marker]: true } = {
    [marker]: true,
    name: 'none',
    capabilities: { durability: 'memory', transactions: false, expiresItself: false },
    prepare: async () => {},
    claim: async (batch) =>
      batch.map(({ attempt }): ClaimAnswer => ({ status: 'claimed', token: 0, attempt, crashed: false })),
    renew: async (batch) => batch.map(() => 'held' as const),
    record: unsupported('job.step'),
    end: async (batch) => batch.map(() => 'held' as const),
    purge: async () => 0,
    close: async () => {},
  }
  return store
}

/** True for what {@link noInbox} returns. */
export function isNoInbox(inbox: InboxStore): boolean {
  return marker in inbox
}
