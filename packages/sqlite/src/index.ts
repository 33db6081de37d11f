export {
  openUrl,
  type SqliteAdapter,
  type SqliteOptions,
  type SqliteStoreOptions,
  sqlite,
  sqliteInbox,
  sqliteOutbox,
} from './options.ts'
export type { SqliteConnection } from './outbox.ts'
