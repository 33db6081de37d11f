export {
  openUrl,
  type RedisAdapter,
  type RedisOptions,
  type RedisStoreOptions,
  redis,
  redisInbox,
} from './options.ts'
export type { RedisWarning, RedisWarningCode } from './server.ts'
