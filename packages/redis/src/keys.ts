/** Where things are. All keys of a queue share its slot in a cluster, and so do those of one scope of the inbox. */

export const queueKey = (prefix: string, queue: string): string => `${prefix}:{${queue}}`

export const streamKey = (base: string, group: string): string => `${base}:g:${group}:stream`

export const deadKey = (base: string, group: string): string => `${base}:g:${group}:dead`

/**
 * One row of the inbox; its steps are beside it, with `s` for `r` at the end. With the length of the scope no two pairs
 * look alike, whatever characters they are made of, and the part in braces is never empty.
 */
export const rowKey = (prefix: string, scope: string, key: string): string =>
  `${prefix}:inbox:{${scope.length}:${scope}}:${key}:r`
