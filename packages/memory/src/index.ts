export { memoryInbox } from './inbox.ts'
export { type MemoryInboxOptions, type MemoryOptions, memory, openUrl } from './options.ts'
