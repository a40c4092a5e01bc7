/**
 * Collections for what comes and goes with every request.
 *
 * The one idea: a Set or Map that is used so makes a new table every few entries, and each table points to the next one.
 * A table that has grown old keeps all later ones, and what stood in them when they were replaced, until the next full
 * garbage collection: most requests, with all they had (docs/decisions/garbage-of-requests.md). So what is kept here is
 * a **place**, which is emptied when it is left.
 */

export class Place<T> {
  #leave: ((place: Place<T>) => void) | undefined
  #member: T | undefined

  constructor(member: T, leave: (place: Place<T>) => void) {
    this.#member = member
    this.#leave = leave
  }

  /** Undefined once it was left. */
  get member(): T | undefined {
    return this.#member
  }

  /** Safe to call twice. */
  leave(): void {
    this.#leave?.(this)
    this.#leave = this.#member = undefined
  }
}

/** A set, in the order in which its members came. */
export class PassingSet<T extends object> implements Iterable<T> {
  readonly #places = new Set<Place<T>>()
  readonly #leave = (place: Place<T>) => void this.#places.delete(place)

  get size(): number {
    return this.#places.size
  }

  add(member: T): Place<T> {
    const place = new Place(member, this.#leave)
    this.#places.add(place)
    return place
  }

  /** Members that come meanwhile have their turn, those that left have none. */
  *[Symbol.iterator](): Generator<T, void> {
    for (const { member } of this.#places) if (member !== undefined) yield member
  }
}

/** A map. */
export class PassingMap<K, T extends object> {
  readonly #cells = new Map<K, { member: T | undefined }>()

  get size(): number {
    return this.#cells.size
  }

  get(key: K): T | undefined {
    return this.#cells.get(key)?.member
  }

  has(key: K): boolean {
    return this.#cells.has(key)
  }

  /** Takes the place of what was there. */
  set(key: K, member: T): void {
    const cell = this.#cells.get(key)
    if (cell) cell.member = member
    else this.#cells.set(key, { member })
  }

  delete(key: K): boolean {
    const cell = this.#cells.get(key)
    if (cell) cell.member = undefined
    return this.#cells.delete(key)
  }

  clear(): void {
    for (const key of this.#cells.keys()) this.delete(key)
  }

  /** As of Map: those that come meanwhile too. */
  *values(): Generator<T, void> {
    for (const { member } of this.#cells.values()) if (member !== undefined) yield member
  }

  *keys(): Generator<K, void> {
    yield* this.#cells.keys()
  }
}
