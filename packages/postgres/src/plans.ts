/**
 * Settings under which the functions of the tables plan: what they come to must not hang on statistics. A queue that was
 * empty a minute ago may have a million rows, and the planner, told otherwise, would read them all, or compare each row
 * of a batch with each of a table.
 */

/** One plan for the session: it is the same for every batch, and making it takes longer than a small one. */
export const planned: string = 'LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan'
export const byIndex: string = 'SET enable_seqscan = off SET enable_bitmapscan = off'
/** Where a batch is joined with a table: look each row up. */
export const oneByOne: string = `${planned} ${byIndex} SET enable_hashjoin = off SET enable_mergejoin = off`
