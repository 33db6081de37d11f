/**
 * The functions of version 1 of the tables: in the database, so that rows in order come by their index, and rows by name
 * one by one, see `plans.ts`. A plan is kept by the session, which also saves making it for every batch.
 *
 * Released functions are never edited: a change is a migration that adds one with the next number.
 */
import { messageFunctions } from './message-functions.ts'
import { storeFunctions } from './store-functions.ts'

/** @param s quoted schema */
export function functions1(s: string): string {
  return messageFunctions(s) + storeFunctions(s)
}
