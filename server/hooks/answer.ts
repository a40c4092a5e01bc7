/**
 * What a hook answered, read as tusd reads it: every field may be missing, and names are known in any case. What can not
 * be used is a failure of the hook, never something that is passed on or over: an answer reaches headers and file names.
 */
import { validateHeaderName, validateHeaderValue } from 'node:http'
import { FileLayout } from '../../stores/file/file-layout.ts'
import { formatMetadata, isMetadataKey } from '../protocol/metadata.ts'
import { HookError } from './hook-types.ts'

/** What shall be answered to the client in place of what would be. */
export interface HookResponse {
  readonly status?: number
  readonly body?: string
  readonly headers: Readonly<Record<string, string>>
}

export interface HookAnswer {
  readonly response: HookResponse
  readonly rejectsUpload: boolean
  readonly rejectsTermination: boolean
  readonly rejectsAccess: boolean
  readonly stopsUpload: boolean
  readonly change: {
    readonly id?: string
    /** As a header; empty for none. */
    readonly metadata?: string
    /** Relative to the folder of the uploads. */
    readonly storagePath?: string
  }
}

/** Throws a HookError. `asSent` is the metadata of the client: what is not changed in it stays as it was sent. */
export function parseAnswer(text: string, asSent?: string): HookAnswer {
  const answer = asFields(text.trim() === '' ? {} : parseJson(text), 'the answer')
  const response = answer.object('HTTPResponse')
  const change = answer.object('ChangeFileInfo')
  return {
    response: parseResponse(response),
    rejectsUpload: answer.boolean('RejectUpload'),
    rejectsTermination: answer.boolean('RejectTermination'),
    rejectsAccess: answer.boolean('RejectAccess'),
    stopsUpload: answer.boolean('StopUpload'),
    change: {
      ...present('id', checkedId(change.string('ID'))),
      ...present('metadata', checkedMetadata(change.strings('MetaData'), asSent)),
      ...present('storagePath', checkedPath(change.object('Storage').string('Path'))),
    },
  }
}

/** Of two answers the later one wins where both say something, as with tusd. */
export function merged(first: HookResponse, second: HookResponse): HookResponse {
  return { ...first, ...second, headers: { ...first.headers, ...second.headers } }
}

function parseResponse(fields: Fields): HookResponse {
  const status = fields.number('StatusCode')
  const body = fields.string('Body')
  if (status !== 0 && (!Number.isInteger(status) || status < 200 || status > 599))
    throw new HookError(`a hook answered the status ${status}, which no final answer can have`)
  return {
    ...(status !== 0 && { status }),
    ...(body !== '' && { body }),
    headers: checkedHeaders(fields.strings('Header') ?? {}),
  }
}

/** What frames an answer is not for a hook to say, nor how far an upload is: the mark says that. */
const ownHeaders = new Set([
  'connection',
  'content-length',
  'keep-alive',
  'proxy-connection',
  'tus-resumable',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'upload-offset',
])

function checkedHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  for (const [name, value] of Object.entries(headers)) {
    try {
      validateHeaderName(name)
      validateHeaderValue(name, value)
    } catch (cause) {
      throw new HookError('a hook answered a header that can not be sent', { cause })
    }
    if (ownHeaders.has(name.toLowerCase()))
      throw new HookError(`a hook answered the header ${name}, which is this server's own to say`)
  }
  return { ...headers }
}

const idCharacters = /^[A-Za-z0-9\-._~%!$'()*+,;=/:@]+$/

/** Ids become names of files and parts of URLs. Segments may not be empty or begin with a dot: those names are ours. */
function checkedId(id: string): string | undefined {
  if (id === '') return undefined
  if (!idCharacters.test(id) || !FileLayout.isValidId(id))
    throw new HookError(
      "a hook answered an ID that can not be used: letters, digits and - . _ ~ % ! $ ' ( ) * + , ; = / : @ are " +
        'allowed, no slash at either end, no part that is empty, begins with a dot or is longer than 200',
    )
  return id
}

/** Inside the folder of the uploads, and none of our own names there. */
function checkedPath(path: string): string | undefined {
  if (path === '') return undefined
  if (!FileLayout.isValidId(path))
    throw new HookError(
      'a hook answered a Storage.Path that can not be used: it must be relative to the folder of the uploads, and no ' +
        'part of it may be empty, begin with a dot or be longer than 200',
    )
  return path
}

function checkedMetadata(
  metadata: Readonly<Record<string, string>> | undefined,
  asSent: string | undefined,
): string | undefined {
  if (metadata === undefined) return undefined
  if (!Object.keys(metadata).every(isMetadataKey))
    throw new HookError('a hook answered MetaData with a key that can not be in Upload-Metadata')
  return formatMetadata(metadata, asSent)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new HookError('a hook answered what is not JSON', { cause })
  }
}

/** Fields of an object by name, in any case; what is missing or null has the value that Go gives it. */
interface Fields {
  object(name: string): Fields
  boolean(name: string): boolean
  number(name: string): number
  string(name: string): string
  strings(name: string): Record<string, string> | undefined
}

function asFields(value: unknown, where: string): Fields {
  const object = value ?? {}
  if (typeof object !== 'object' || Array.isArray(object)) throw wrong(where, 'an object')
  const entries = Object.entries(object)
  const get = (name: string): unknown => {
    const exact = entries.find(([key]) => key === name)
    return (exact ?? entries.findLast(([key]) => key.toLowerCase() === name.toLowerCase()))?.[1] ?? undefined
  }
  const primitive = <T>(name: string, otherwise: T): T => {
    const found = get(name)
    if (found === undefined) return otherwise
    if (typeof found !== typeof otherwise) throw wrong(name, `a ${typeof otherwise}`)
    return found as T
  }
  return {
    object: (name) => asFields(get(name), name),
    boolean: (name) => primitive(name, false),
    number: (name) => primitive(name, 0),
    string: (name) => primitive(name, ''),
    strings: (name) => {
      const found = get(name)
      return found === undefined ? undefined : asStrings(found, name)
    },
  }
}

/** Without a prototype: any word is an ordinary key. */
function asStrings(value: unknown, name: string): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name, 'an object')
  const strings: Record<string, string> = Object.create(null)
  for (const [key, each] of Object.entries(value)) {
    if (each !== null && typeof each !== 'string') throw wrong(name, 'an object of strings')
    strings[key] = each ?? ''
  }
  return strings
}

function wrong(name: string, wanted: string): HookError {
  return new HookError(`in what a hook answered, ${name} is not ${wanted}`)
}

function present<K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: T })
}
