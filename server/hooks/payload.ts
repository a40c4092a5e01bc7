/**
 * What hooks are told, in the words of tusd: receivers that were written for it read this unchanged. Pure.
 */
import type { RequestSummary, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { parseMetadata } from '../protocol/metadata.ts'
import type { HookType } from './hook-types.ts'

export interface HookStorage {
  readonly Type: string
  /** Absolute path of the bytes. */
  readonly Path: string
  /** Absolute path of what decides whether the upload is there. */
  readonly InfoPath: string
}

export interface HookUpload {
  readonly ID: string
  readonly Size: number
  readonly SizeIsDeferred: boolean
  readonly Offset: number
  readonly MetaData: Readonly<Record<string, string>>
  readonly IsPartial: boolean
  readonly IsFinal: boolean
  readonly PartialUploads: readonly string[] | null
  readonly Storage: HookStorage | null
}

/** What a request wants to do to an upload; only in `pre-access`. */
export type AccessAction = 'create' | 'append' | 'ask' | 'terminate' | 'read'

export interface HookPayload {
  readonly Type: HookType
  readonly Event: {
    readonly Upload: HookUpload
    readonly HTTPRequest: {
      readonly Method: string
      readonly URI: string
      readonly RemoteAddr: string
      readonly Header: Readonly<Record<string, readonly string[]>>
    }
    readonly Access?: { readonly Action: AccessAction }
  }
}

export function payloadOf(
  type: HookType,
  upload: HookUpload,
  request: RequestSummary,
  action?: AccessAction,
): HookPayload {
  const { method, uri, remoteAddress, headers } = request
  const httpRequest = { Method: method, URI: uri, RemoteAddr: remoteAddress, Header: headerLists(headers) }
  return {
    Type: type,
    Event: {
      Upload: upload,
      HTTPRequest: httpRequest,
      ...(action !== undefined && { Access: { Action: action } }),
    },
  }
}

/** An upload that is there. */
export function hookUploadOf({ head, mark }: UploadRecord, storage: HookStorage): HookUpload {
  return { ...plan(head, mark.length), ID: head.id, Offset: mark.offset, Storage: storage }
}

/** An upload that somebody wants to make: it has no name and no place yet. */
export function plannedUploadOf(
  head: Pick<UploadHead, 'metadata' | 'concat' | 'parts'>,
  length: number | undefined,
): HookUpload {
  return plan(head, length)
}

/** An upload of which nothing but the id is known, if it is there at all. */
export function unknownUpload(id: string): HookUpload {
  return { ...plan({}, 0), ID: id }
}

function plan(
  { metadata, concat, parts }: Pick<UploadHead, 'metadata' | 'concat' | 'parts'>,
  length: number | undefined,
): HookUpload {
  return {
    ID: '',
    Size: length ?? 0,
    SizeIsDeferred: length === undefined,
    Offset: 0,
    MetaData: metadataOf(metadata),
    IsPartial: concat !== undefined && parts === undefined,
    IsFinal: parts !== undefined,
    PartialUploads: parts ?? null,
    Storage: null,
  }
}

/** A key without a value has an empty one, as with tusd. */
function metadataOf(header: string | undefined): Record<string, string> {
  const entries = Object.entries(parseMetadata(header ?? '') ?? {})
  return Object.fromEntries(entries.map(([key, value]) => [key, value ?? '']))
}

/** Every header as a list, under its name as Go writes it: `Upload-Length`, `X-Request-Id`. */
function headerLists(headers: RequestSummary['headers']): Record<string, string[]> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      canonicalName(name),
      typeof value === 'string' ? [value] : [...value],
    ]),
  )
}

export function canonicalName(name: string): string {
  return name.toLowerCase().replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase())
}

const secretName = /auth|cookie|token|secret|passw|credential|session|signature|api-?_?key|^sig$|^key$/i

/**
 * What may be kept on a disk of a request until its event is delivered: everything but what opens doors. Headers go, and
 * parameters of the URL lose their values.
 */
export function withoutSecrets({ headers, uri, ...rest }: RequestSummary): RequestSummary {
  const kept = Object.entries(headers).filter(([name]) => !secretName.test(name))
  return { ...rest, uri: withoutSecretParameters(uri), headers: Object.fromEntries(kept) }
}

function withoutSecretParameters(uri: string): string {
  const start = uri.indexOf('?')
  if (start < 0) return uri
  const parameters = uri.slice(start + 1).split('&')
  const kept = parameters.map((parameter) => {
    const [name = ''] = parameter.split('=', 1)
    return secretName.test(decoded(name)) ? `${name}=` : parameter
  })
  return `${uri.slice(0, start)}?${kept.join('&')}`
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
