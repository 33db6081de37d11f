import type { Message } from './queue.ts'

/**
 * A doubly linked list through the messages themselves: every move is O(1) and allocates nothing. A message is in one
 * list at most. (An array's `shift` is O(n) once it holds tens of thousands.)
 */
export class MessageList {
  first: Message | undefined
  last: Message | undefined
  length = 0

  push(message: Message): void {
    message.previous = this.last
    if (this.last) this.last.next = message
    else this.first = message
    this.last = message
    this.length++
  }

  unshift(message: Message): void {
    message.next = this.first
    if (this.first) this.first.previous = message
    else this.last = message
    this.first = message
    this.length++
  }

  shift(): Message | undefined {
    const message = this.first
    if (message) this.remove(message)
    return message
  }

  remove(message: Message): void {
    const { previous, next } = message
    if (previous) previous.next = next
    else this.first = next
    if (next) next.previous = previous
    else this.last = previous
    message.previous = undefined
    message.next = undefined
    this.length--
  }

  *[Symbol.iterator](): Generator<Message> {
    for (let message = this.first; message; message = message.next) yield message
  }
}
