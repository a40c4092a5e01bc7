/**
 * Tells who watches uploads what happens to them, on whichever server: all that there is at the beginning, then what
 * changes, a few times a second at most.
 *
 * The one idea: of each upload a watcher is owed the latest state and nothing older. So a reader that is slow costs no
 * more than one that is fast, and who was owed too much is shown everything anew. While nobody watches, nothing runs.
 */
import { setMaxListeners } from 'node:events'
import type { Now, RecordNews, RecordStore, UploadRecord } from '../../stores/contracts.ts'
import { Chronicle, type HappeningKind } from './chronicle.ts'
import type { Count, Counting, CountPage } from './counting.ts'
import { isPart } from './kin.ts'
import { isNewer } from './progress.ts'
import { Slots } from './slots.ts'
import { Tally } from './tally.ts'

export type { HappeningKind } from './chronicle.ts'

export type Selection =
  | { readonly is: 'all' }
  | { readonly is: 'owner'; readonly owner: string }
  | {
      readonly is: 'named'
      readonly ids: readonly string[]
      readonly isShown: (record: UploadRecord) => boolean
    }

export interface Happening {
  readonly kind: HappeningKind
  readonly id: string
  /** As it is now; as it was last, of what is gone. */
  readonly count: Count | undefined
}

/** Somebody who is told. */
export interface Watcher {
  /** Whether more can be taken now; after it could not be, `Watch.resume` is called. */
  readonly isReady: boolean
  /** Everything, at the beginning and whenever something may have been missed. Replaces what was told before. */
  snapshot(page: CountPage): void
  happened(happening: Happening): void
  /** Nothing more will come: this server is being stopped. */
  ended(): void
}

export interface Watch {
  /** The watcher is ready again. */
  resume(): void
  stop(): void
}

export interface WatchingParts {
  readonly counting: Counting
  readonly records: RecordStore | undefined
  readonly now: Now
  /** How long changes are collected. Default 400. */
  readonly collectMs?: number
}

/** The newest uploads that a snapshot shows. */
const shownAtMost = 100
/** Who is owed more than this is shown everything anew. */
const owedAtMost = 1000
/** Names can be in there, and megabytes too: these are not remembered for those who read slowly. */
const metadataAtMost = 4096
const snapshotsAtOnce = 4
const lookAgainMs = 2000

interface Owed {
  record: UploadRecord | undefined
  readonly kinds: Set<HappeningKind>
}

interface Member {
  readonly selection: Selection
  readonly watcher: Watcher
  readonly owed: Map<string, Owed>
  isOwedAll: boolean
  isServed: boolean
}

export class Watching {
  readonly #parts: WatchingParts
  readonly #members = new Set<Member>()
  readonly #byOwner = new Map<string, Set<Member>>()
  readonly #byName = new Map<string, Set<Member>>()
  readonly #ofAll = new Set<Member>()
  readonly #dirty = new Set<Member>()
  readonly #slots = new Slots(snapshotsAtOnce)
  readonly #closing = new AbortController()
  #chronicle = new Chronicle(0)
  #tally: Tally
  #stopListening: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(parts: WatchingParts) {
    this.#parts = parts
    this.#tally = new Tally(parts.counting)
    // Many may begin to watch at once; each waits for its turn, and for the end.
    setMaxListeners(0, this.#closing.signal)
  }

  /** How many are watching. */
  get size(): number {
    return this.#members.size
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  /**
   * Begins with a snapshot, before it returns. What ended after `since`, and is in the snapshot, is told once more. Fails
   * with `unavailable` where lists can not be had now.
   */
  async watch(selection: Selection, watcher: Watcher, since?: number): Promise<Watch> {
    const member: Member = { selection, watcher, owed: new Map(), isOwedAll: false, isServed: true }
    this.#add(member)
    try {
      const page = await this.#look(selection)
      this.#show(member, page)
      for (const count of page.counts) {
        if (since === undefined || count.state === 'open' || count.movedAt < since) continue
        watcher.happened({ kind: count.state, id: count.record.head.id, count })
      }
    } catch (error) {
      this.#remove(member)
      throw error
    }
    member.isServed = false
    if (this.isClosed) this.#end(member)
    else if (member.owed.size > 0 || member.isOwedAll) this.#soon(member)
    return {
      resume: () => {
        if (member.owed.size > 0 || member.isOwedAll) this.#soon(member)
      },
      stop: () => this.#remove(member),
    }
  }

  /** Ends all watches. */
  close(): void {
    this.#closing.abort()
    for (const member of [...this.#members]) if (!member.isServed) this.#end(member)
  }

  #end(member: Member): void {
    this.#remove(member)
    member.watcher.ended()
  }

  #add(member: Member): void {
    this.#members.add(member)
    const { selection } = member
    if (selection.is === 'all') this.#ofAll.add(member)
    else if (selection.is === 'owner') addTo(this.#byOwner, selection.owner, member)
    else for (const id of selection.ids) addTo(this.#byName, id, member)
    if (this.#stopListening !== undefined) return
    this.#chronicle = new Chronicle(this.#parts.now())
    this.#tally = new Tally(this.#parts.counting)
    this.#stopListening = this.#parts.records?.watch((news) => this.#hear(news)) ?? (() => undefined)
  }

  #remove(member: Member): void {
    if (!this.#members.delete(member)) return
    const { selection } = member
    this.#dirty.delete(member)
    this.#ofAll.delete(member)
    if (selection.is === 'owner') removeFrom(this.#byOwner, selection.owner, member)
    if (selection.is === 'named') for (const id of selection.ids) removeFrom(this.#byName, id, member)
    if (this.#members.size > 0) return
    this.#stopListening?.()
    this.#stopListening = undefined
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #hear(news: RecordNews): void {
    if (news.is === 'missed') {
      for (const member of this.#members) this.#oweAll(member)
    } else if (news.is === 'removed') this.#onRemoved(news.id, news.record)
    else this.#onPut(withoutLongMetadata(news.record))
  }

  #onPut(record: UploadRecord): void {
    if (isPart(record.head)) {
      for (const final of this.#tally.partMoved(record))
        for (const member of this.#whoWatches(final)) this.#owe(member, final.head.id, final, ['progress'])
    }
    const members = this.#whoWatches(record)
    if (members.length === 0) return
    const kinds = this.#chronicle.put(record)
    if (kinds.length > 0) for (const member of members) this.#owe(member, record.head.id, record, kinds)
  }

  #onRemoved(id: string, record: UploadRecord | undefined): void {
    this.#chronicle.removed(id)
    this.#tally.forget(id)
    const members = record ? this.#whoWatches(record) : [...(this.#byName.get(id) ?? [])]
    const kind = record && this.#parts.counting.hasExpired(record) ? 'expired' : 'terminated'
    for (const member of members) this.#owe(member, id, record && withoutLongMetadata(record), [kind])
  }

  /** Parts are shown with their final, and by themselves to who names them. */
  #whoWatches({ head }: UploadRecord): Member[] {
    const named = this.#byName.get(head.id) ?? []
    if (isPart(head)) return [...named]
    const owned = head.owner === undefined ? [] : (this.#byOwner.get(head.owner) ?? [])
    return [...named, ...owned, ...this.#ofAll]
  }

  #owe(member: Member, id: string, record: UploadRecord | undefined, kinds: readonly HappeningKind[]): void {
    if (member.isOwedAll) return
    const owed = member.owed.get(id) ?? { record, kinds: new Set() }
    owed.record = record ?? owed.record
    for (const kind of kinds) owed.kinds.add(kind)
    member.owed.set(id, owed)
    if (member.owed.size > owedAtMost) this.#oweAll(member)
    else this.#soon(member)
  }

  #oweAll(member: Member): void {
    member.owed.clear()
    member.isOwedAll = true
    this.#soon(member)
  }

  #soon(member: Member): void {
    if (!this.#members.has(member)) return
    this.#dirty.add(member)
    this.#timer ??= setTimeout(() => this.#serveAll(), this.#parts.collectMs ?? 400)
  }

  #serveAll(): void {
    this.#timer = undefined
    // Those who look at the same are shown the same: one look for all of them.
    const looks = new Map<string, Promise<CountPage>>()
    for (const member of [...this.#dirty]) {
      if (member.isServed) continue
      this.#dirty.delete(member)
      if (member.watcher.isReady) void this.#serve(member, looks)
    }
  }

  async #serve(member: Member, looks: Map<string, Promise<CountPage>>): Promise<void> {
    member.isServed = true
    try {
      if (member.isOwedAll) {
        member.isOwedAll = false
        const key = keyOf(member.selection)
        const look = (key && looks.get(key)) || this.#look(member.selection)
        if (key) looks.set(key, look)
        this.#show(member, await look)
      }
      for (const [id, { record, kinds }] of [...member.owed]) {
        if (!member.watcher.isReady) break
        member.owed.delete(id)
        await this.#tell(member, id, record, kinds)
      }
    } catch {
      // The records are away; whoever watches is shown everything when they are back.
      this.#oweAllLater(member)
    } finally {
      member.isServed = false
      if (this.isClosed) this.#end(member)
      else if (this.#dirty.has(member) && this.#members.has(member)) this.#soon(member)
    }
  }

  #oweAllLater(member: Member): void {
    member.owed.clear()
    member.isOwedAll = true
    setTimeout(() => this.#soon(member), lookAgainMs).unref()
  }

  async #tell(
    member: Member,
    id: string,
    record: UploadRecord | undefined,
    kinds: ReadonlySet<HappeningKind>,
  ): Promise<void> {
    const isGone = kinds.has('terminated') || kinds.has('expired')
    const count = record && (await this.#tally.countOf(record))
    if (count === undefined && !isGone) return
    if (record && !isShown(member.selection, record)) return
    const said = [...kinds].filter((kind) => kind !== 'progress' || kinds.size === 1)
    for (const kind of said) member.watcher.happened({ kind, id, count })
  }

  #look(selection: Selection): Promise<CountPage> {
    const { counting } = this.#parts
    return this.#slots.use(this.#closing.signal, async () => {
      if (selection.is === 'owner') return counting.list({ owner: selection.owner, limit: shownAtMost })
      if (selection.is === 'all') return counting.list({ limit: shownAtMost })
      const counts = await counting.some(selection.ids)
      return { counts: counts.filter(({ record }) => selection.isShown(record)) }
    })
  }

  #show(member: Member, page: CountPage): void {
    for (const count of page.counts) {
      this.#chronicle.found(count.record)
      this.#tally.found(count)
      const owed = member.owed.get(count.record.head.id)
      if (owed?.record && isNewer(count.record, owed.record)) owed.record = count.record
    }
    member.watcher.snapshot(page)
  }
}

function isShown(selection: Selection, record: UploadRecord): boolean {
  return selection.is !== 'named' || selection.isShown(record)
}

/** What is shown of uploads that are named depends on who asks. */
function keyOf(selection: Selection): string | undefined {
  if (selection.is === 'named') return undefined
  return selection.is === 'all' ? 'all' : `owner ${selection.owner}`
}

function withoutLongMetadata(record: UploadRecord): UploadRecord {
  if ((record.head.metadata?.length ?? 0) <= metadataAtMost) return record
  const { metadata: _, ...head } = record.head
  return { ...record, head }
}

function addTo(index: Map<string, Set<Member>>, key: string, member: Member): void {
  index.set(key, (index.get(key) ?? new Set()).add(member))
}

function removeFrom(index: Map<string, Set<Member>>, key: string, member: Member): void {
  const members = index.get(key)
  members?.delete(member)
  if (members?.size === 0) index.delete(key)
}
