export type { PgClient, PgPool, PgQueryable, PgResult } from './client.ts'
export { type MigrationOptions, migrationSql } from './migrations.ts'
export {
  openUrl,
  type PostgresAdapter,
  type PostgresOptions,
  type PostgresStoreOptions,
  postgres,
  postgresInbox,
  postgresOutbox,
} from './options.ts'
export type { OutboxTransaction, SqlStatement } from './outbox.ts'
export type { PostgresTransaction } from './transaction.ts'
