import { AsyncLocalStorage } from 'node:async_hooks'

/**
 * Set while a handler runs in a transaction. What it sent there would be sent even if the transaction rolled back, and
 * where broker and inbox share a database the send would wait for the very transaction it is in.
 */
export const transactionContext: AsyncLocalStorage<true> = new AsyncLocalStorage()
