/** Which kinds of files are taken, by what clients say of them. Nobody has seen the bytes then. */
import { Refusal } from '../errors.ts'
import { parseMetadata } from '../protocol/metadata.ts'

/** Keys under which clients say the media type of a file: tus-js-client and tusd the first, Uppy both. */
const typeKeys = ['filetype', 'type'] as const

/**
 * Refuses an upload whose metadata names no type that is allowed, or none at all. The client says it: nobody has seen the
 * bytes. Patterns are `image/png`, `image/*` and `*`; parameters of a type (`; charset=...`) do not count.
 */
export function typeRule(
  allowed: readonly string[] | undefined,
): ((metadata: string | undefined) => Refusal | undefined) | undefined {
  if (allowed === undefined || allowed.length === 0) return undefined
  const wanted = `only these types are accepted here: ${allowed.join(', ')}`
  return (metadata) => {
    const values = metadata === undefined ? undefined : parseMetadata(metadata)
    const types = typeKeys.map((key) => values?.[key]).filter(isSaid)
    if (types.length > 0 && types.every((type) => isAllowed(type, allowed))) return undefined
    const detail = types.length === 0 ? `${wanted}; say it as filetype in Upload-Metadata` : wanted
    return new Refusal('type-refused', { detail })
  }
}

/** Uppy sends the words for what is not there. */
function isSaid(type: string | null | undefined): type is string {
  return typeof type === 'string' && type !== 'null' && type !== 'undefined'
}

function isAllowed(type: string, allowed: readonly string[]): boolean {
  const essence = type.split(';', 1)[0]!.trim().toLowerCase()
  return allowed.some((pattern) => {
    if (pattern === '*' || pattern === '*/*') return true
    return pattern.endsWith('/*') ? essence.startsWith(pattern.slice(0, -1)) : essence === pattern
  })
}
