/** How long the page goes on trying, and after which answers. */

// The length of this list is the number of failures in a row that an upload survives: a day of trying.
export const retryDelaysMs = [0, 1000, 3000, 5000, ...Array<number>(8640).fill(10_000)]

/** An answer that means "not now". */
export function isPassing(status: number): boolean {
  return status >= 500 || status === 409 || status === 423 || status === 429
}
