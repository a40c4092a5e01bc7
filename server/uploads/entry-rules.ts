/** What a server takes at all: uploads that say what they may be, and as long as its disk has room. */
import type { ByteStore } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'

interface EntrySettings {
  readonly reserveFreeBytes: number
  /** Refuses uploads by what their metadata says; undefined where nobody looks. */
  readonly refuseMetadata: ((metadata: string | undefined) => Refusal | undefined) | undefined
}

/**
 * Refuses what may not come in: `bytes` for an upload, or a new one as `creation` says. What parts are is said of
 * their final. Undefined, and nobody waits, where everything is taken.
 */
export function checkEntry(
  { bytes: store, settings }: { bytes: ByteStore; settings: EntrySettings },
  bytes: number,
  creation?: { readonly metadata: string | undefined; readonly partial?: string | undefined },
): Promise<void> | undefined {
  const { refuseMetadata, reserveFreeBytes } = settings
  if (refuseMetadata && creation && creation.partial === undefined) {
    const refusal = refuseMetadata(creation.metadata)
    if (refusal) throw refusal
  }
  if (reserveFreeBytes === 0) return undefined
  return refuseWithoutReserve(store, bytes, reserveFreeBytes).then((refusal) => {
    if (refusal) throw refusal
  })
}

/** Refuses `bytes` more where less than `reserveBytes` would be left. A store that does not know takes them. */
async function refuseWithoutReserve(
  store: Pick<ByteStore, 'freeBytes'>,
  bytes: number,
  reserveBytes: number,
): Promise<Refusal | undefined> {
  const free = await store.freeBytes()
  if (free === undefined || free - bytes >= reserveBytes) return undefined
  return new Refusal('reserve')
}
