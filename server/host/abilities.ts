/**
 * What this server can do with the store that it was given: what OPTIONS announces, and what is refused because the
 * store cannot do it.
 */
import type { DataStore } from '@tus/utils'
import type { ByteStore } from '../../stores/contracts.ts'
import { DataStoreBytes } from '../../stores/tus/data-store-bytes.ts'
import { type ErrorCode, Refusal } from '../errors.ts'
import type { Command } from '../protocol/messages.ts'
import type { Abilities } from '../protocol/tus.ts'
import type { Expiry } from '../uploads/rules.ts'
import type { DigestPolicy } from '../uploads/whole-hash.ts'

/** Tidemark's own stores bring a byte store; any other @tus store is used through its own methods. */
export function byteStoreOf(datastore: DataStore & { readonly byteStore?: ByteStore }): ByteStore {
  return datastore.byteStore ?? new DataStoreBytes(datastore)
}

/** How long uploads live. A plain store says so by itself, counted from the creation, and can do no other. */
export function expiryOf({
  datastore,
  expiry,
}: {
  datastore: DataStore & { readonly byteStore?: ByteStore }
  expiry?: Expiry
}): Expiry {
  if (datastore.byteStore) return expiry ?? { afterMs: 0, mode: 'sliding' }
  if (expiry)
    throw new TypeError(
      'the option expiry needs a store of Tidemark; others are told by an option of their own',
    )
  return { afterMs: datastore.hasExtension('expiration') ? datastore.getExpiration() : 0, mode: 'absolute' }
}

/** A plain store has no place for owners: nobody would find again what they uploaded. */
export function checkGate({
  datastore,
  gate,
}: {
  datastore: DataStore & { readonly byteStore?: ByteStore }
  gate?: unknown
}): void {
  if (gate !== undefined && datastore.byteStore === undefined)
    throw new TypeError('the option gate needs a store of Tidemark; others keep no owners of uploads')
}

/** What is announced: what the store can do, less what is switched off. */
export function abilitiesOf(
  { extensions, concatenation, keepsDigests }: ByteStore,
  {
    disableTermination,
    maxSize,
    digest,
  }: { disableTermination?: boolean; maxSize?: unknown; digest?: DigestPolicy },
): Abilities {
  const isOn = (name: string) =>
    !(disableTermination && name === 'termination') && !(!concatenation && name.startsWith('concatenation'))
  return {
    extensions: extensions.filter(isOn),
    digests: keepsDigests ? (digest === 'never' ? 'ignored' : 'verified') : 'unsupported',
    maxBytes: typeof maxSize === 'number' && maxSize > 0 ? maxSize : undefined,
  }
}

/** Refuses what the store cannot do, or what is switched off. */
export function refuseUnable(
  command: Command,
  bytes: ByteStore,
  { disableTermination, disableDownload }: { disableTermination?: boolean; disableDownload?: boolean },
): Refusal | undefined {
  const code = unable(command, bytes)
  if (command.do === 'terminate' && disableTermination) return new Refusal('termination-disabled')
  if (command.do === 'read' && disableDownload) return new Refusal('download-disabled')
  return code && new Refusal(code)
}

function unable(command: Command, bytes: ByteStore): ErrorCode | undefined {
  const can = (extension: string) => bytes.extensions.includes(extension)
  if (command.do === 'create' && command.length === undefined && !can('creation-defer-length'))
    return 'defer-length-unsupported'
  if (command.do === 'terminate' && !can('termination')) return 'termination-unsupported'
  if (command.do === 'read' && bytes instanceof DataStoreBytes && !bytes.canRead) return 'not-found'
  return undefined
}
